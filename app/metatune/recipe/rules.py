"""Rules on single values of a recipe, carried in the metadata of a dataclass field."""

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from datetime import date
from typing import Any

from metatune.recipe.faults import Fault


@dataclass(frozen=True)
class ValueRule:
    """A test on one value, and the words for what passes it."""

    holds: Callable[[Any], bool]
    allowed: str


AT_LEAST_ONE_OR_NAMED = ValueRule(
    lambda value: isinstance(value, str) or value >= 1, "one of the names, or 1 or above"
)
SOME = ValueRule(lambda value: len(value) > 0, "a list of at least one")
NOT_EMPTY = ValueRule(lambda value: len(value) > 0, "null, or a list of at least one")
POSITIVE = ValueRule(lambda value: value > 0, "a number above 0")
EACH_POSITIVE = ValueRule(
    lambda value: all(n > 0 for n in (value.values() if isinstance(value, Mapping) else (value,))),
    "a number above 0, or one by name",
)
NOT_NEGATIVE = ValueRule(lambda value: value >= 0, "0 or above")
ABOVE_ONE = ValueRule(lambda value: value > 1, "null, or a number above 1")
MORE_THAN_ONE = ValueRule(lambda value: value > 1, "a number above 1")
ONE_OR_MORE = ValueRule(lambda value: value >= 1, "1 or above")
SEED = ValueRule(lambda value: 0 <= value < 2**64, "a whole number from 0 to 2**64 - 1")
AT_LEAST_ONE = ValueRule(lambda value: value >= 1, "a whole number of 1 or above")
FOUR_TO_SIXTEEN = ValueRule(lambda value: 4 <= value <= 16, "a whole number from 4 to 16")
AT_LEAST_TWO = ValueRule(lambda value: value >= 2, "a whole number of 2 or above")
LARGEST_SIZE = 64
"""Times a recipe's own, beyond which a size is a slip of the keyboard."""
SIZES = ValueRule(
    lambda values: (
        len(set(values)) == len(values) > 0 and all(1 <= value <= LARGEST_SIZE for value in values)
    ),
    f"a list of different whole numbers from 1 to {LARGEST_SIZE}",
)
BUCKETS = ValueRule(lambda value: 2 <= value <= 256, "null, or a whole number from 2 to 256")
PARTS = ValueRule(
    lambda value: len(value) > 0 and all(0 < part <= 1 for part in value),
    "one or more fractions above 0, at most 1",
)
INNER_FRACTION = ValueRule(lambda value: 0 < value < 1, "a fraction between 0 and 1, both excluded")
FRACTION = ValueRule(lambda value: 0 <= value < 1, "a fraction from 0 up to, not including, 1")
DECAYS = ValueRule(
    lambda values: len(set(values)) == len(values) > 0 and all(0 < value < 1 for value in values),
    "a list of different fractions between 0 and 1, both excluded",
)
HIDDEN = ValueRule(lambda value: 4 <= value <= 32, "a whole number from 4 to 32")

CHUNK = ValueRule(
    lambda value: value == "auto" or (isinstance(value, int) and value >= 1),
    "auto, null or a whole number of 1 or above",
)


def _is_date(value: str) -> bool:
    try:
        return date.fromisoformat(value).isoformat() == value
    except ValueError:
        return False


ISO_DATE = ValueRule(_is_date, "null, or a day as YYYY-MM-DD")


def arguments(command: str | Sequence[str]) -> tuple[str, ...]:
    """A command as program and arguments; text is split as a shell splits it, and no more.

    Raises:
        ValueError: text with a quotation mark that isn't closed.
    """
    return tuple(shlex.split(command) if isinstance(command, str) else command)


def _is_command(value: str | Sequence[str]) -> bool:
    try:
        return bool(arguments(value) and arguments(value)[0])
    except ValueError:
        return False


COMMAND = ValueRule(
    _is_command, "a program and its arguments, as a list or as text in closed quotes"
)


def broken_rules(section: Any, path: str) -> Iterator[Fault]:
    """A fault for each field of a dataclass whose value breaks its rule.

    Args:
        section: an instance of a dataclass of the schema.
        path: dotted path of the section.
    """
    for field_ in said_fields(section):
        rule, value = field_.metadata.get("rule"), getattr(section, field_.name)
        if rule is not None and value is not None and not rule.holds(value):
            yield Fault(f"{path}.{field_.name}", value, f"must be {rule.allowed}")


def said_fields(section: Any) -> tuple[Field[Any], ...]:
    """The fields of a dataclass of the schema that a recipe can say.

    Args:
        section: the dataclass, or an instance of it.
    """
    return tuple(each for each in fields(section) if each.init)


def ruled(*default_and_rule: Any) -> Any:
    """A dataclass field with a rule: `ruled(rule)` is required, `ruled(default, rule)` is not.

    A rule isn't applied to `None` where the field's type admits it.
    """
    *default, rule = default_and_rule
    return field(default=default[0] if default else MISSING, metadata={"rule": rule})
