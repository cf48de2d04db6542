"""What a recipe's fields are, as text for a terminal."""

import json
import shlex
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from metatune.recipe.examples import example
from metatune.recipe.faults import ABSENT
from metatune.recipe.reference import ITEM, FieldEntry, description, sections
from metatune.recipe.writing import plain

LABEL: Final = 10
"""Columns of what stands before a value."""
LONGEST: Final = 100
"""Columns of a line at most, however wide the terminal."""
HEAD: Final = "A recipe's sections and their fields; `metatune explain PATH` says more of each."


def overview(width: int | None = None) -> str:
    """All sections of a recipe, each with its fields.

    Args:
        width: columns; those of the terminal by default.
    """
    lines = _wrapped(HEAD, "", width)
    for entry in sections():
        lines += ["", entry.path, *_wrapped(entry.meaning, "  ", width)]
        if names := ", ".join(_last(inner) for inner in entry.entries()):
            lines += _wrapped(names, "    ", width)
    return "\n".join(lines)


def explained(entries: Sequence[FieldEntry], width: int | None = None) -> str:
    """What there is to say of the fields that a path may mean.

    Args:
        entries: those, of each kind of section that has one.
        width: columns; those of the terminal by default.
    """
    alike: dict[tuple[str, str, str, str], list[FieldEntry]] = {}
    for entry in entries:
        alike.setdefault((entry.meaning, entry.type, entry.allowed, _default(entry)), []).append(
            entry
        )
    return "\n\n".join("\n".join(_said(group, width)) for group in alike.values())


def value_said(value: Any) -> str:
    """A plain value in one line, as a recipe has it."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {value_said(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(value_said, value)) + "]"
    if isinstance(value, str) and value.replace("_", "").isalnum() and not value[0].isdigit():
        return value
    return json.dumps(value, ensure_ascii=False)


def _said(alike: Sequence[FieldEntry], width: int | None) -> Iterator[str]:
    first = alike[0]
    yield from (entry.path for entry in alike)
    paragraphs = [first.meaning]
    if first.section is not None:
        own = description(first.section)
        begun = own[0].lower().startswith(first.meaning.rstrip(".").lower())
        paragraphs = own if begun else [first.meaning, *own]
    for number, paragraph in enumerate(paragraphs):
        if number:
            yield ""
        yield from _wrapped(paragraph, "  ", width)
    yield ""
    change = value_said(example(first))
    if ITEM not in first.key:  # no override changes a single item of a list
        change = shlex.quote(f"{first.key}={change}")
    facts = {
        "type": first.type,
        "allowed": first.allowed,
        "default": _default(first),
        "example": change,
    }
    for label, fact in facts.items():
        if fact:
            yield from _wrapped(fact, f"  {label:<{LABEL}}", width)
    below = first.entries()
    if first.kinds or first.section or any(inner.kinds or inner.section for inner in below):
        yield ""
        yield f"  {'kinds' if first.kinds else 'fields' if first.section else 'each'}"
        for inner in below:
            yield f"    {_last(inner)}"
            yield from _wrapped(inner.meaning, "      ", width)


def _default(entry: FieldEntry) -> str:
    return "none: it must be given" if entry.default is ABSENT else value_said(plain(entry.default))


def _wrapped(text: str, before: str, width: int | None) -> list[str]:
    """Lines of whole words, `before` on the first and as many blanks on the others."""
    columns = width or shutil.get_terminal_size().columns
    return textwrap.wrap(
        text,
        min(columns, LONGEST),
        initial_indent=before,
        subsequent_indent=" " * len(before),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _last(entry: FieldEntry) -> str:
    return entry.path.rsplit(".", 1)[-1]
