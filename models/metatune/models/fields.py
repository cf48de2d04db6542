"""What the values of a `config.json` may be."""

import math
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from metatune.recipe.faults import ABSENT, Fault, nearest, unknown
from metatune.recipe.rules import ValueRule


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


LARGEST_SIZE = 2**26
SIZE = ValueRule(
    lambda value: (
        isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LARGEST_SIZE
    ),
    f"a whole number from 1 to {LARGEST_SIZE:,}",
)
MOST_LAYERS = 10_000
LAYERS = ValueRule(
    lambda value: SIZE.holds(value) and value <= MOST_LAYERS,
    f"a whole number from 1 to {MOST_LAYERS:,}",
)
POSITIVE = ValueRule(lambda value: _is_number(value) and value > 0, "a number above 0")
STRETCH = ValueRule(lambda value: _is_number(value) and value >= 1, "a number of 1 or above")
NOT_NEGATIVE = ValueRule(lambda value: _is_number(value) and value >= 0, "a number of 0 or above")
SHARE = ValueRule(lambda value: _is_number(value) and 0 < value <= 1, "a fraction above 0 up to 1")
FLAG = ValueRule(lambda value: isinstance(value, bool), "true or false")
FULL, SLIDING = "full_attention", "sliding_attention"
LAYER_TYPES = ValueRule(
    lambda value: isinstance(value, list) and all(one in (FULL, SLIDING) for one in value),
    f"a list of {FULL} and {SLIDING}",
)
SWITCHES = ValueRule(
    lambda value: isinstance(value, list) and all(one in (0, 1) for one in value),
    "a list of 0 and 1",
)
NUMBERS = ValueRule(
    lambda value: (
        isinstance(value, list)
        and all(isinstance(one, int) and not isinstance(one, bool) and one >= 0 for one in value)
    ),
    "a list of whole numbers of 0 or above",
)
POSITIVES = ValueRule(
    lambda value: isinstance(value, list) and all(POSITIVE.holds(one) for one in value),
    "a list of numbers above 0",
)
NULL = ValueRule(lambda value: False, "null, the only one that is supported")


class Field(NamedTuple):
    """A field that is read.

    Attributes:
        rule: what its values may be.
        default: what it is where it is absent, as in transformers.
        nullable: whether null is a value of its own, None, and not the default.
    """

    rule: ValueRule
    default: Any = None
    nullable: bool = False


def only(allowed: Any) -> ValueRule:
    """The rule of a field that is understood at one value alone."""
    return ValueRule(lambda value: value == allowed, f"{allowed!r}, the only one that is supported")


def faults(
    path: str,
    given: Mapping[str, Any],
    rules: Mapping[str, ValueRule],
    required: Collection[str],
    ignored: Collection[str] = (),
) -> list[Fault]:
    """What is wrong with fields by themselves.

    Args:
        path: dotted path of what holds the fields.
        given: the fields' values, without those that are null: as in Hugging Face's files, null
            stands for the default.
        rules: by name of the fields that are known.
        required: names of those that must be given.
        ignored: names of those that are of no interest.
    """
    found, meant = [], set()
    for name, value in given.items():
        if name in rules:
            if not rules[name].holds(value):
                cure = f"write {rules[name].allowed}"
                if name not in required:
                    cure = "correct it, or leave it out for the default"
                found.append(Fault(f"{path}.{name}", value, f"must be {rules[name].allowed}", cure))
        elif name not in ignored:
            found.append(unknown(f"{path}.{name}", value, "key", name, list(rules)))
            meant.add(nearest(name, rules))
    return found + [
        Fault(f"{path}.{name}", ABSENT, "missing", f"write {rules[name].allowed}")
        for name in required
        if name not in given and name not in meant  # else the misspelt key says it already
    ]
