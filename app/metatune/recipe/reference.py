"""What there is to say of every field of a recipe, gathered from the schema.

The type and the default are those of the dataclass, what is allowed is its rule, the meaning stands
in the docstring of its section. Nothing is written down again.
"""

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, is_dataclass
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

from metatune.recipe.faults import ABSENT, RecipeError, unknown
from metatune.recipe.moved import refusal
from metatune.recipe.reading import kinds_of, members_of, words_of
from metatune.recipe.rules import ValueRule, said_fields
from metatune.recipe.schema import Recipe

NAME: Final = "NAME"
"""Stands for a name that the recipe gives: of a domain, a tunable, a group."""

ITEM: Final = "[0]"
"""Stands for an item of a list."""


@dataclass(frozen=True)
class FieldEntry:
    """One field of a recipe, a kind of section, or an item of a mapping or of a list.

    Attributes:
        path: dotted, with the kind after a section that has several.
        key: the path as an override has it, without kinds.
        expected: the type.
        meaning: what it is.
        default: `ABSENT` where there is none.
        rule: on its value; None for none.
    """

    path: str
    key: str
    expected: Any
    meaning: str
    default: Any = ABSENT
    rule: ValueRule | None = None

    @property
    def kinds(self) -> Mapping[str, type]:
        """The sections that it may be, by kind; empty where it has no kinds to choose from."""
        found = kinds_of(self.expected)
        return found if len(found) > 1 else {}

    @property
    def section(self) -> type | None:
        """The dataclass that it is, or may be; None where it is none, or has kinds."""
        if self.kinds:
            return None
        members = members_of(self.expected)
        return next((m for m in members if isinstance(m, type) and is_dataclass(m)), None)

    @property
    def type(self) -> str:
        """What a value is, in words."""
        if self.section is not None:
            members = members_of(self.expected)
            names = [
                name for each in members if get_origin(each) is Literal for name in get_args(each)
            ]
            null = ["null"] if type(None) in members else []
            return " or ".join([*names, "a section", *null])
        return words_of(self.expected)

    @property
    def allowed(self) -> str:
        """Which values there are; empty where every one of the type is."""
        if self.rule is not None:
            return self.rule.allowed
        choices = [
            choice
            for each in members_of(self.expected)
            if get_origin(each) is Literal
            for choice in get_args(each)
        ]
        return ", ".join(map(str, choices))

    def entries(self) -> list["FieldEntry"]:
        """What is one step below it."""
        if self.kinds:
            return [
                FieldEntry(f"{self.path}.{kind}", self.key, cls, summary(cls))
                for kind, cls in self.kinds.items()
            ]
        if self.section is not None:
            return _fields(self.section, self.path, self.key, kinds_of(self.expected))
        for each in members_of(self.expected):
            if inner := _inside(each):
                place, below = inner
                if below is Any:
                    return []
                path = f"{self.path}{place}" if place == ITEM else f"{self.path}.{place}"
                key = f"{self.key}{place}" if place == ITEM else f"{self.key}.{place}"
                return [FieldEntry(path, key, below, self.meaning)]
        return []


def sections() -> list[FieldEntry]:
    """The fields of a recipe itself."""
    return _fields(Recipe, "", "", {})


def every() -> Iterator[FieldEntry]:
    """All fields, kinds and items of a recipe, those above before those below."""
    waiting = sections()
    while waiting:
        entry = waiting.pop(0)
        yield entry
        waiting = [*entry.entries(), *waiting]


def find(path: str) -> list[FieldEntry]:
    """What a dotted path means: of a section with kinds, a field of each kind that has it.

    Args:
        path: e.g. `tune.mixture.floor`, `inner.optimizer.adamw.b1`, `outer.phases[0].steps`; for
            a domain's or another name of the recipe's own any name will do.

    Raises:
        RecipeError: there is nothing by that path, with the nearest that there is.
    """
    at: list[FieldEntry] = []
    for number, part in enumerate(parts := _parts(path)):
        before = ".".join(parts[: number + 1])
        below = [inner for entry in at for inner in _reachable(entry)] if number else sections()
        if at and all(_is_open(entry) for entry in at):
            return at
        found = [entry for entry in below if _last(entry.path) in (part, NAME)]
        items = [entry for entry in below if entry.path.endswith(ITEM)]
        if not found and items:
            deeper = [inner for entry in items for inner in _reachable(entry)]
            found = items if part.isdigit() else [e for e in deeper if _last(e.path) == part]
            below = deeper or items
        if not found:
            if moved := refusal(before, ABSENT):
                raise RecipeError(path, [moved])
            names = list(dict.fromkeys(_last(entry.path) for entry in below))
            if not names:
                names = [entry.path for entry in at]
            raise RecipeError(path, [unknown(before, ABSENT, "field", part, names)])
        at = found
    return at


def summary(cls: type) -> str:
    """The first sentence or paragraph of a section's docstring, in one line."""
    return _paragraphs(cls)[0]


def description(cls: type) -> list[str]:
    """The paragraphs of a section's docstring, what it says of single fields left out."""
    return _paragraphs(cls)


def _fields(cls: type, path: str, key: str, kinds: Mapping[str, type]) -> list[FieldEntry]:
    hints, said = get_type_hints(cls), _attributes(cls)
    entries = []
    for field in said_fields(cls):
        expected = hints[field.name]
        default = field.default if field.default_factory is MISSING else field.default_factory()
        meaning = said.get(field.name) or _by_type(cls, field, expected)
        entries.append(
            FieldEntry(
                f"{path}.{field.name}" if path else field.name,
                f"{key}.{field.name}" if key else field.name,
                expected,
                meaning,
                ABSENT if default is MISSING else default,
                field.metadata.get("rule"),
            )
        )
    return entries


def _by_type(cls: type, field: Field[Any], expected: Any) -> str:
    """The meaning of a field that its section says no more of: that of its own section."""
    if field.name == "kind":
        return f"says which section this is: {summary(cls)}"
    members = [each for each in members_of(expected) if isinstance(each, type)]
    held = [summary(each) for each in members if is_dataclass(each)]
    return " Or: ".join(held)


def _inside(expected: Any) -> tuple[str, Any] | None:
    """The place and the type of what a list or a mapping holds; None of what holds nothing."""
    origin = get_origin(expected)
    if origin is tuple:
        return ITEM, get_args(expected)[0]
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return NAME, get_args(expected)[1]
    return None


def _reachable(entry: FieldEntry) -> list[FieldEntry]:
    """What a path may go on with: of kinds, their fields too, as a recipe writes them."""
    below = entry.entries()
    return below + [inner for kind in below for inner in kind.entries()] if entry.kinds else below


def _is_open(entry: FieldEntry) -> bool:
    """Whether it holds what others define, as a Hugging Face config does."""
    return any((_inside(each) or ("", None))[1] is Any for each in members_of(entry.expected))


def _parts(path: str) -> Sequence[str]:
    return [part for part in re.split(r"\.|\[|\]", path) if part] or [""]


def _last(path: str) -> str:
    return path.rsplit(".", 1)[-1]


def _paragraphs(cls: type) -> list[str]:
    text = inspect.cleandoc(cls.__doc__ or "").split("\nAttributes:")[0]
    return [" ".join(paragraph.split()) for paragraph in text.strip().split("\n\n")]


def _attributes(cls: type) -> dict[str, str]:
    """What docstrings say of each field, those of the classes that it extends before its own."""
    found: dict[str, str] = {}
    for each in reversed(cls.__mro__[:-1]):
        _, _, text = inspect.cleandoc(each.__doc__ or "").partition("\nAttributes:\n")
        name = ""
        for line in text.splitlines():
            if start := re.fullmatch(r"    (\w+): (.*)", line):
                name = start[1]
                found[name] = start[2]
            elif name and line.strip():
                found[name] += f" {line.strip()}"
    return found
