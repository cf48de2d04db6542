"""A public class name means one thing: it stands in one module."""

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXPORTED = "templates"
"""What is written for others' trainers has the names of these."""


def test_a_class_name_stands_in_one_module():
    where = defaultdict(list)
    for tree in ("app", "models", "data"):
        for file in sorted((ROOT / tree).rglob("*.py")):
            if EXPORTED not in file.parts:
                for node in ast.walk(ast.parse(file.read_text())):
                    if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                        where[node.name].append(str(file.relative_to(ROOT)))
    assert len(where) > 300
    assert {name: files for name, files in where.items() if len(files) > 1} == {}
