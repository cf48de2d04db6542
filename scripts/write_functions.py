#!/usr/bin/env python3
"""Functions from the shipped Python sources, as prompts and completions, one a line of JSON.

A prompt is what a function's docstring says; the completion is the function without it.

usage: write_functions.py FILE.jsonl
"""

import ast
import json
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

from metatune.data import shipped_text


def functions(source: str) -> Iterator[dict[str, str]]:
    """Each function and method that has a docstring and something behind it."""
    lines = source.split("\n")
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        said = ast.get_docstring(node)
        if said and len(node.body) > 1:
            head = lines[node.lineno - 1 : node.body[0].lineno - 1]
            body = lines[node.body[0].end_lineno : node.end_lineno]
            written = textwrap.dedent("\n".join(head + body))
            yield {"prompt": f"{said}\n\n", "completion": f"{written}\n"}


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    source = shipped_text("code_stdlib")
    whole = source[: source.rindex("\nclass ")]  # the text ends in the middle of one
    lines = [json.dumps(record) for record in functions(whole)]
    Path(sys.argv[1]).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    print(f"{len(lines):,} functions are in {sys.argv[1]}")


if __name__ == "__main__":
    main()
