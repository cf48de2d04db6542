"""Recipes from YAML: the schema's dataclasses, filled, or every fault of the text at once.

One reader per shape of type (`SHAPES`) serves every field of `schema`: a new section or choice
there needs nothing here.
"""

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from metatune.recipe.checks import check
from metatune.recipe.document import load_file
from metatune.recipe.faults import ABSENT, Fault, RecipeError, nearest, unknown
from metatune.recipe.moved import refusal
from metatune.recipe.overrides import apply
from metatune.recipe.paths import joined
from metatune.recipe.rules import said_fields
from metatune.recipe.schema import Recipe

BROKEN: Final = object()  # what a reader returns after it has reported a fault
EXPONENT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)[eE][-+]?[0-9]+")


def read(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in the YAML file at `path`, changed by `overrides`.

    Args:
        path: a YAML file.
        overrides: `KEY.PATH=VALUE` each, as `overrides.apply` takes them.

    Raises:
        RecipeError: the file can't be read, isn't a mapping in YAML, or anything in it or in the
            overrides breaks the schema or a rule between fields. All faults are in it.
    """
    sections, faults = draft(path, overrides)
    if faults:
        raise RecipeError(str(path), faults)
    return Recipe(**sections)


def draft(path: Path, overrides: Sequence[str] = ()) -> tuple[dict[str, Any], tuple[Fault, ...]]:
    """As `read`, but returns the faults, so that others can be added to them.

    Returns:
        As `collect`.
    """
    tree, faults = load_file(path)
    if faults:
        return {}, tuple(faults)
    if isinstance(tree, Mapping):
        tree, faults = apply(tree, overrides)
    sections, more = collect(tree)
    return sections, (*faults, *more)


def parse(tree: Mapping[str, Any], source: str) -> Recipe:
    """The recipe that `tree`, a mapping of plain values, says.

    Args:
        tree: sections by name, as read from YAML.
        source: what error messages call it.

    Raises:
        RecipeError: anything in it breaks the schema or a rule between fields.
    """
    sections, faults = collect(tree)
    if faults:
        raise RecipeError(source, faults)
    return Recipe(**sections)


def collect(tree: Any) -> tuple[dict[str, Any], tuple[Fault, ...]]:
    """The sections of the recipe that `tree` says, and all its faults.

    Without faults they make a recipe. With faults they are for finding further ones only: values
    that break a rule stand in them as they are, defaults stand for what can't be read, and a
    section is left out where a value that has no default is missing or can't be read.
    """
    if not isinstance(tree, Mapping):
        problem = f"must be a mapping of sections, not {_received(tree)}"
        names = ", ".join(field.name for field in fields(Recipe))
        return {}, (Fault("", ABSENT, problem, f"write `section: ...` for each of: {names}"),)
    faults: list[Fault] = []
    sections = _fields(Recipe, tree, "", faults)
    own = tuple(faults)
    for fault in check(sections, sound=not own):
        # Defaults stand for what can't be read: neither they nor a section with them are judged.
        if not any(_stands_in(fault, found) for found in own):
            faults.append(fault)
    return sections, tuple(faults)


def _stands_in(fault: Fault, found: Fault) -> bool:
    """Whether a fault is of a default, or a section with one, where the recipe can't be read."""
    if found.path == fault.path:
        return found.value != fault.value
    return found.path.startswith(f"{fault.path}.")


def _fields(cls: type, tree: Mapping[str, Any], path: str, faults: list[Fault]) -> dict[str, Any]:
    """The fields of dataclass `cls`, defaults for what can't be read; faults are appended."""
    hints = get_type_hints(cls)
    known = {field.name: field for field in said_fields(cls)}
    meant = set()
    for key in tree:
        if key not in known:
            here = joined(path, key)
            moved = refusal(here, tree[key])
            faults.append(moved or unknown(here, tree[key], "key", key, list(known)))
            meant.add(nearest(key, known))
    values = {}
    for name, field in known.items():
        here, expected, rule = joined(path, name), hints[name], field.metadata.get("rule")
        default = field.default if field.default_factory is MISSING else field.default_factory()
        if name in tree:
            value = _value(expected, tree[name], here, faults, default)
            if rule is not None and value is not BROKEN and value is not None:
                if not rule.holds(value):
                    faults.append(Fault(here, value, f"must be {rule.allowed}", _cure(default)))
            if value is BROKEN and default is not MISSING:
                value = default
        elif default is not MISSING:
            value = default
        else:
            if name not in meant:  # else the misspelt key says it already
                allowed = rule.allowed if rule else words_of(expected)
                faults.append(Fault(here, ABSENT, "missing", f"write {allowed}"))
            continue
        if value is not BROKEN:
            values[name] = value
    return values


def _value(
    expected: Any, value: Any, path: str, faults: list[Fault], default: Any = MISSING
) -> Any:
    """`value` as the type `expected`, or BROKEN after appending what is wrong with it.

    Args:
        expected: a type of the schema; a union of dataclasses is told apart by `kind`.
        value: what the recipe says.
        path: dotted path of the field.
        faults: appended to.
        default: the field's, whose class stands in for a missing `kind`; so does one that is
            told by a field that no other has, its `SAID_BY`.
    """
    members = members_of(expected)
    if value is None and NoneType in members:
        return None
    tagged = kinds_of(expected)
    if len(tagged) > 1 and isinstance(value, Mapping):
        said = (m.kind for m in tagged.values() if getattr(m, "SAID_BY", None) in value)
        kind = value.get("kind", next(said, getattr(default, "kind", ABSENT)))
        where = joined(path, "kind")
        if kind is ABSENT:
            faults.append(Fault(where, ABSENT, "missing", f"write one of {', '.join(tagged)}"))
            return BROKEN
        if kind not in list(tagged):  # a list, because what was received may not be hashable
            moved = refusal(where, kind)
            faults.append(moved or unknown(where, kind, "kind", kind, list(tagged)))
            return BROKEN
        members = (tagged[kind],)
    for member in members:
        if member is not NoneType and SHAPES[_shape(member)].fits(value):
            return SHAPES[_shape(member)].read(member, value, path, faults)
    faults.append(Fault(path, value, f"must be {words_of(expected)}", _cure(default)))
    return BROKEN


def members_of(expected: Any) -> tuple[Any, ...]:
    """The alternatives of a union; a type that is none stands alone."""
    return get_args(expected) if get_origin(expected) in (Union, UnionType) else (expected,)


def _shape(expected: Any) -> Any:
    """The key of `expected` in `SHAPES`."""
    return is_dataclass if is_dataclass(expected) else get_origin(expected) or expected


def kinds_of(expected: Any) -> dict[str, Any]:
    """The members of a union that have a `kind`, by it."""
    return {member.kind: member for member in members_of(expected) if hasattr(member, "kind")}


def words_of(expected: Any) -> str:
    """What a value of type `expected` may be, in words."""
    members = members_of(expected)
    tagged = kinds_of(expected)
    if len(tagged) > 1:
        return f"a section whose kind is {' or '.join(tagged)}"
    return " or ".join("null" if m is NoneType else SHAPES[_shape(m)].words(m) for m in members)


def _received(value: Any) -> str:
    """What sort of value was received, in the words of a recipe."""
    return next(
        (words for kind, words in ((str, "text"), (list, "a list")) if isinstance(value, kind)),
        repr(value),
    )


def _cure(default: Any) -> str:
    """What to do about a value that isn't allowed."""
    if default is MISSING:
        return "there is no default: choose one"
    if is_dataclass(default):
        return "leave it out for the defaults"
    return f"leave it out for the default, {json.dumps(default)}"


def _number(value: Any) -> int | float | None:
    """`value` as a finite number, if it is one; true and false are none.

    Text is one where it is an exponent form: loaders of YAML 1.1 leave `3e-4` as text.
    """
    if isinstance(value, str) and EXPONENT.fullmatch(value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    largest = sys.float_info.max
    return value if -largest <= value <= largest else None


def _is_whole(value: Any) -> bool:
    number = _number(value)
    return number is not None and number == int(number)


def _read_choice(expected: Any, value: str, path: str, faults: list[Fault]) -> Any:
    choices = get_args(expected)
    if value in choices:
        return value
    faults.append(unknown(path, value, "choice", value, choices))
    return BROKEN


def _read_mapping(expected: Any, value: Mapping[Any, Any], path: str, faults: list[Fault]) -> Any:
    _, inner = get_args(expected)
    items = {}
    for key, item in value.items():
        if not isinstance(key, str):
            problem = f"the name {key!r} must be text"
            faults.append(Fault(joined(path, key), item, problem, f'write "{key}" in quotes'))
        else:
            items[key] = _value(inner, item, joined(path, key), faults)
    return BROKEN if BROKEN in items.values() else items


def _read_list(inner: Any, value: Sequence[Any], path: str, faults: list[Fault]) -> Any:
    before = len(faults)
    items = [_value(inner, item, f"{path}[{i}]", faults) for i, item in enumerate(value)]
    return items if len(faults) == before else BROKEN


def _read_tuple(expected: Any, value: Sequence[Any], path: str, faults: list[Fault]) -> Any:
    items = _read_list(get_args(expected)[0], value, path, faults)
    return items if items is BROKEN else tuple(items)


def _read_section(expected: type, value: Mapping[str, Any], path: str, faults: list[Fault]) -> Any:
    values = _fields(expected, value, path, faults)
    return expected(**values) if len(values) == len(said_fields(expected)) else BROKEN


def _read_plain(expected: Any, value: Any, path: str, faults: list[Fault]) -> Any:
    """A copy of any value that JSON can say: what other formats' configurations consist of."""
    if isinstance(value, Mapping):
        return _read_mapping(Mapping[str, expected], value, path, faults)
    if isinstance(value, list | tuple):
        return _read_list(expected, value, path, faults)
    return value


def _is_plain(value: Any) -> bool:
    known = isinstance(value, NoneType | bool | str | Mapping | list | tuple)
    return known or _number(value) is not None


@dataclass(frozen=True)
class ValueShape:
    """How values of one shape of type are told, read and named.

    Attributes:
        fits: whether a value has the shape; what it holds is for `read` to judge.
        read: `(expected, value, path, faults)` to the value, or `BROKEN` after adding faults.
        words: the type in words, after "must be".
    """

    fits: Callable[[Any], bool]
    read: Callable[[Any, Any, str, list[Fault]], Any]
    words: Callable[[Any], str]


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


SHAPES: Final[Mapping[Any, ValueShape]] = {
    bool: ValueShape(
        lambda value: isinstance(value, bool),
        lambda expected, value, path, faults: value,
        lambda expected: "true or false",
    ),
    int: ValueShape(
        _is_whole,
        lambda expected, value, path, faults: int(_number(value) or 0),
        lambda expected: "a whole number",
    ),
    float: ValueShape(
        lambda value: _number(value) is not None,
        lambda expected, value, path, faults: float(_number(value) or 0.0),
        lambda expected: "a finite number",
    ),
    str: ValueShape(
        _is_text,
        lambda expected, value, path, faults: value,
        lambda expected: "text",
    ),
    Literal: ValueShape(
        _is_text,
        _read_choice,
        lambda expected: " or ".join(get_args(expected)),
    ),
    tuple: ValueShape(
        _is_list,
        _read_tuple,
        lambda expected: f"a list (each item {words_of(get_args(expected)[0])})",
    ),
    get_origin(Mapping[str, Any]): ValueShape(
        _is_mapping,
        _read_mapping,
        lambda expected: f"a mapping (name: {words_of(get_args(expected)[1])})",
    ),
    is_dataclass: ValueShape(
        _is_mapping,
        _read_section,
        lambda expected: (
            f"a section with {', '.join(field.name for field in said_fields(expected))}"
        ),
    ),
    Any: ValueShape(
        _is_plain,
        _read_plain,
        lambda expected: "a finite number, text, true, false, null, a list or a mapping",
    ),
}
