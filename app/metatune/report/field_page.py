"""Every field of a recipe as a page of Markdown, docs/fields.md."""

import re
from collections.abc import Iterator
from typing import Final

from metatune.recipe.faults import ABSENT
from metatune.recipe.reference import ITEM, NAME, FieldEntry, description, every, sections
from metatune.recipe.writing import plain
from metatune.report.field_reference import value_said

HEAD: Final = f"""\
# Every field of a recipe

Made by `scripts/render_reference.py` from `app/metatune/recipe/schema/`, where each field stands
with its type, its default and what it means. `metatune explain PATH` prints the same of one field,
with an example. `{NAME}` is a name that the recipe gives, `{ITEM}` an item of a list; a field
without a default must be given. What sections have in common is said once and linked.
"""


def markdown() -> str:
    """The page: a heading for each section and each choice of kinds, a table of its fields."""
    headed = [entry for entry in every() if entry.kinds or entry.section]
    home: dict[object, FieldEntry] = {}
    for entry in sorted(headed, key=lambda entry: entry.path.count(".")):
        home.setdefault(_shared(entry), entry)
    lines = [HEAD, "## A recipe", "", *_table(sections(), home)]
    for entry in headed:
        if home[_shared(entry)] is entry:
            lines += _said(entry, home)
    return "\n".join(lines) + "\n"


def anchor(heading: str) -> str:
    """The part of a link that leads to a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def _shared(entry: FieldEntry) -> object:
    """What two sections have in common that need only be told once."""
    return tuple(entry.kinds.values()) or entry.section


def _said(entry: FieldEntry, home: dict[object, FieldEntry]) -> Iterator[str]:
    yield from ("", f"## `{entry.path}`", "")
    for paragraph in description(entry.section) if entry.section else [entry.meaning]:
        yield from (_prose(paragraph), "")
    if entry.kinds:
        for inner in entry.entries():
            kind = inner.path.rsplit(".", 1)[-1]
            yield f"- [`{kind}`]({_link(inner, home)}): {_prose(inner.meaning)}"
    else:
        yield from _table(entry.entries(), home)


def _table(entries: list[FieldEntry], home: dict[object, FieldEntry]) -> Iterator[str]:
    yield "| field | what it is | value | default |"
    yield "| --- | --- | --- | --- |"
    for entry in entries:
        cells = (_name(entry, home), _prose(entry.meaning), _value(entry), _default(entry))
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _name(entry: FieldEntry, home: dict[object, FieldEntry]) -> str:
    name = f"`{entry.path.rsplit('.', 1)[-1]}`"
    held = _held(entry)
    return name if held is None else f"[{name}]({_link(held, home)})"


def _held(entry: FieldEntry) -> FieldEntry | None:
    """The section that it is, or that its items are; None for plain values."""
    while not (entry.kinds or entry.section):
        inner = entry.entries()
        if not inner:
            return None
        (entry,) = inner
    return entry


def _link(entry: FieldEntry, home: dict[object, FieldEntry]) -> str:
    return f"#{anchor(f'`{home[_shared(entry)].path}`')}"


def _value(entry: FieldEntry) -> str:
    """What may stand there, in words."""
    held = _held(entry)
    if held is not None and held is not entry:
        return "a list of sections" if held.path.endswith(ITEM) else "a section for each name"
    if entry.kinds:
        return " or ".join(f"`{kind}`" for kind in entry.kinds)
    if entry.rule is None:
        return _prose(entry.type)
    null = entry.type.endswith(" or null")
    what = entry.type.removesuffix(" or null")
    allowed = entry.rule.allowed
    whole = what == "a finite number" or what in allowed or "null" in allowed
    said = allowed if whole else f"{what}: {allowed}"
    return _prose(said + (" or null" if null and "null" not in allowed else ""))


def _default(entry: FieldEntry) -> str:
    return "" if entry.default is ABSENT else f"`{value_said(plain(entry.default))}`"


def _prose(text: str) -> str:
    """Text in which nothing but what stands in backticks is taken for markup."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(
        part if part.startswith("`") else re.sub(r"([*_<>\[\]])", r"\\\1", part) for part in parts
    )
