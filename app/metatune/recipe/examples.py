"""A value to try for every field of a recipe: one that a shipped recipe has, or the default."""

import functools
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, is_dataclass
from types import NoneType
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

from metatune.recipe import shipped
from metatune.recipe.document import load
from metatune.recipe.faults import ABSENT
from metatune.recipe.reading import kinds_of, members_of
from metatune.recipe.reference import ITEM, NAME, FieldEntry
from metatune.recipe.rules import said_fields
from metatune.recipe.writing import plain

NUMBERS: Final = (2, 4, 0.1, 1, 0.5, 1.5)
TEXTS: Final[Mapping[str, str]] = {
    "path": "texts/*.txt",
    "jsonl": "texts/*.jsonl",
    "parquet": "texts/*.parquet",
    "csv": "texts/*.csv",
    "saved": "texts/saved",
    "dataset": "HuggingFaceFW/fineweb-edu",
    "config": "sample-10BT",
    "split": "train",
    "revision": "main",
    "column": "text",
    "prompt": "question",
    "completion": "answer",
    "messages": "messages",
    "label": "quality",
    "arrow": "texts/*.arrow",
    "input_ids": "input_ids",
    "loss_mask": "loss_mask",
    "labels": "labels",
    "date": "2026-03-01",
    "pretrained": "HuggingFaceTB/SmolLM2-135M",
    "command": "python train.py",
    "checkpoints": "models/other",
}
"""By the field's name, where any text would do for the reader but not for a user."""
EXPRESSION: Final = "mlp"
"""Finds parameters in every family, as a regular expression."""


def example(entry: FieldEntry) -> Any:
    """A plain value that a recipe may have there."""
    for value in _shipped(entry.path):
        if is_dataclass(entry.expected) and not isinstance(value, Mapping):
            # A field may be called like the kind of section that it is of, as `groups` is.
            return {entry.path.rsplit(".", 1)[-1]: value}
        return value
    if entry.default is not ABSENT and entry.default is not None:
        return plain(entry.default)
    return _sample(entry)


def _sample(entry: FieldEntry) -> Any:
    """A value of the type, that obeys the rule."""
    name = entry.path.rsplit(".", 1)[-1].removesuffix(ITEM)
    for value in _of_type(entry.expected, name):
        if entry.rule is None or value is None or entry.rule.holds(value):
            return value
    raise ValueError(f"{entry.path}: none of the examples obeys its rule: add one")


def _of_type(expected: Any, name: str) -> Iterator[Any]:
    if kinds_of(expected):
        expected = next(iter(kinds_of(expected).values()))
    for each in members_of(expected):
        origin = get_origin(each)
        if each is NoneType:
            continue
        if isinstance(each, type) and is_dataclass(each):
            yield _of_section(each)
        elif origin is Literal:
            yield from get_args(each)
        elif each is bool:
            yield True
        elif each is str:
            yield TEXTS.get(name, EXPRESSION)
        elif each in (int, float):
            yield from (n for n in NUMBERS if each is float or n == int(n))
        elif origin is tuple:
            yield from ([value] for value in _of_type(get_args(each)[0], name))
        elif origin is not None:
            yield from ({NAME.lower(): value} for value in _of_type(get_args(each)[1], name))
        else:
            yield 1


def _of_section(cls: type) -> dict[str, Any]:
    """What a section can't do without: its kind, and what has no default."""
    hints = get_type_hints(cls)
    needed = {
        field.name: field
        for field in said_fields(cls)
        if field.name == "kind" or (field.default is MISSING and field.default_factory is MISSING)
    }
    return {
        name: field.default
        if name == "kind"
        else _sample(FieldEntry(name, name, hints[name], "", rule=field.metadata.get("rule")))
        for name, field in needed.items()
    }


def _shipped(path: str) -> Iterator[Any]:
    """What shipped recipes have at a path, in which any name stands for `NAME`."""
    for tree in _trees():
        yield from (value for value in _at(tree, path.split(".")) if value is not None)


def _at(tree: Any, parts: list[str]) -> Iterator[Any]:
    if not parts:
        yield tree
    elif isinstance(tree, Mapping):
        if tree.get("kind") == parts[0]:
            yield from _at(tree, parts[1:])
        for name in tree if parts[0] == NAME else [parts[0]]:
            if name in tree:
                yield from _at(tree[name], parts[1:])


@functools.cache
def _trees() -> list[Any]:
    files = [shipped.folder() / f"{name}.yaml" for name in shipped.names()]
    return [load(file.read_text(encoding="utf-8"))[0] for file in files]
