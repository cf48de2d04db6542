#!/usr/bin/env python3
"""Dialogues from the shipped plays of Shakespeare, as prompts and completions, one a line of JSON.

A prompt is a speech with its speaker's name before it, and the name of who speaks next; the
completion is what that one says.

usage: write_dialogues.py FILE.jsonl
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from metatune.data import shipped_text

SPEECH = re.compile(r"([A-Z][A-Z' ]+)\.\n(.+)", re.DOTALL)
"""A paragraph that is a speech: who speaks, in capitals on a line of its own, and what."""


def dialogues(play: str) -> Iterator[dict[str, str]]:
    """Each two speeches that follow one another."""
    before = None
    for paragraph in re.split(r"\n\s*\n", play):
        speech = SPEECH.fullmatch(paragraph.strip())
        if before and speech:
            prompt = f"{before[1]}:\n{before[2]}\n\n{speech[1]}:\n"
            yield {"prompt": prompt, "completion": f"{speech[2]}\n"}
        before = speech


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    lines = [json.dumps(record) for record in dialogues(shipped_text("drama_shakespeare"))]
    Path(sys.argv[1]).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    print(f"{len(lines):,} dialogues are in {sys.argv[1]}")


if __name__ == "__main__":
    main()
