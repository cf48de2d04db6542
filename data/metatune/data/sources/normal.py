"""One normal form of the values of a record, however it is stored.

Formats differ in what they can say. Arrow gives every object the keys of all others, null where it
has none; a column of whole numbers with a gap becomes one of floats; CSV holds nothing but text.
Every value of every source goes through here before anything is made of it, and comes out the
same:

- text is valid Unicode;
- a number without a fraction is a whole number, and one that is no number is null;
- objects have no nulls: a key that is null is a key that isn't there; elsewhere null stays null;
- dates and times are text, as ISO 8601 writes them.

Keys of objects keep the order in which the source has them.
"""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from math import isinf, isnan
from typing import Any, Final

from metatune.data.sources.records import Location
from metatune.data.sources.unicode import Policy, sound

EXACT: Final = 2**53  # up to here, every whole number is a float64 of its own
NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
"""A number as JSON writes it. What begins with zeros, as a code of a country, stays text."""


def normal(value: Any, policy: Policy, place: Location, what: str) -> tuple[Any, int]:
    """The normal form of a value.

    Args:
        value: as a reader gives it; text may be bytes, or hold surrogates for what isn't UTF-8.
        policy: what to do about text that isn't UTF-8.
        place: where it stands.
        what: what it is, for errors.

    Returns:
        Text, a whole number, a float, a bool, None, or dicts and lists of them; and how many bytes
        of text became U+FFFD.

    Raises:
        RecipeError: text isn't UTF-8 and shall be refused, or this is something else altogether.
    """
    if isinstance(value, str | bytes):
        return sound(value, policy, place, what)
    if value is None or isinstance(value, bool | int):
        return value, 0
    if isinstance(value, float | Decimal):
        return _number(float(value)), 0
    if isinstance(value, datetime | date | time):
        return value.isoformat(), 0
    if isinstance(value, Mapping):
        items = [
            (*normal(key, policy, place, what), *normal(item, policy, place, what))
            for key, item in value.items()
        ]
        pairs = {key: item for key, _, item, _ in items if item is not None}
        return pairs, sum(in_key + in_item for _, in_key, _, in_item in items)
    if isinstance(value, Sequence):
        parts = [normal(item, policy, place, what) for item in value]
        return [item for item, _ in parts], sum(replaced for _, replaced in parts)
    problem = f"{what} holds {type(value).__name__}"
    cure = "must be text, numbers, true or false, or lists and objects of them"
    raise place.refuse(problem, cure)


def normal_list(value: Any, policy: Policy, place: Location, what: str) -> tuple[list[Any], int]:
    """The normal form of a list; text is read as JSON, because CSV has nothing else.

    Args:
        value: as a reader gives it; null is an empty list.
        policy: what to do about text that isn't UTF-8.
        place: where it stands.
        what: what it is, for errors.

    Raises:
        RecipeError: it is no list, or as `normal`.
    """
    found, replaced = normal(value, policy, place, what)
    if isinstance(found, str):
        try:
            written = json.loads(found) if found.strip() else None
        except (ValueError, RecursionError) as error:
            problem = f"{what} holds text that is no JSON: {error}"
            raise place.refuse(problem, "give a list, or a list as JSON") from error
        found, more = normal(written, policy, place, what)
        replaced += more
    if found is not None and not isinstance(found, list):
        problem = f"{what} holds {type(found).__name__}; must be a list"
        raise place.refuse(problem, "name another column")
    return found or [], replaced


def _number(value: float) -> float | int | None:
    """A float in its normal form."""
    if isnan(value):  # what pandas writes where there is nothing
        return None
    return int(value) if value.is_integer() and abs(value) <= EXACT else value


def spelled(value: Any) -> str | None:
    """A label as it is written everywhere, None for what is no label.

    CSV has only text, and its numbers may be floats because of a gap in their column: text that
    reads as a number, or as true or false, is that. `1`, `1.0` and `"1"` are one label.

    >>> [spelled(each) for each in (1, "1.0", True, "TRUE", 0.5, "0.50", "007", "good")]
    ['1', '1', 'true', 'true', '0.5', '0.5', '007', 'good']

    Args:
        value: in normal form.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if not isinstance(value, str) or not value:
        return None
    if value.lower() in ("true", "false"):
        return value.lower()
    if not (written := NUMBER.fullmatch(value)):
        return value
    if not any(written.groups()):
        return repr(int(value))
    return value if isinf(float(value)) else repr(_number(float(value)))
