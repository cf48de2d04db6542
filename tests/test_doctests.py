"""The examples in docstrings are run, each module's by itself."""

import doctest
import importlib
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
ELSEWHERE = {"metatune.api"}
"""Whose examples need a finished run: tests/test_api.py."""


def modules():
    """Every module with an example."""
    for root in ("app", "models", "data"):
        for path in sorted((PROJECT / root).rglob("*.py")):
            # Of a template the names are filled in when it is exported.
            if ">>> " in path.read_text(encoding="utf-8") and "templates" not in path.parts:
                parts = path.relative_to(PROJECT / root).with_suffix("").parts
                yield ".".join(part for part in parts if part != "__init__")


MODULES = list(modules())


@pytest.mark.parametrize("name", [each for each in MODULES if each not in ELSEWHERE])
def test_the_examples_hold(name):
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted > 0
    assert found.failed == 0


def test_there_are_some():
    assert len(MODULES) >= 8
    assert ELSEWHERE < set(MODULES)
