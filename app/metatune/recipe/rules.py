"""Rules on single values of a recipe, carried in the metadata of a dataclass field."""

from collections.abc import Callable
from dataclasses import MISSING, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Rule:
    """A test on one value, and the words for what passes it."""

    holds: Callable[[Any], bool]
    allowed: str


POSITIVE = Rule(lambda value: value > 0, "a number above 0")
NOT_NEGATIVE = Rule(lambda value: value >= 0, "0 or above")
AT_LEAST_ONE = Rule(lambda value: value >= 1, "a whole number of 1 or above")
AT_LEAST_TWO = Rule(lambda value: value >= 2, "a whole number of 2 or above")
INNER_FRACTION = Rule(lambda value: 0 < value < 1, "a fraction between 0 and 1, both excluded")
FRACTION = Rule(lambda value: 0 <= value < 1, "a fraction from 0 up to, not including, 1")


def ruled(*default_and_rule: Any) -> Any:
    """A dataclass field with a rule: `ruled(rule)` is required, `ruled(default, rule)` is not.

    A rule isn't applied to `None` where the field's type admits it.
    """
    *default, rule = default_and_rule
    return field(default=default[0] if default else MISSING, metadata={"rule": rule})
