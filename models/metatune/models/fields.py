"""What the values of a `config.json` may be."""

import math
from collections.abc import Collection, Mapping
from typing import Any

from metatune.recipe.faults import ABSENT, Fault, nearest, unknown
from metatune.recipe.rules import Rule


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


SIZE = Rule(
    lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= 1,
    "a whole number of 1 or above",
)
POSITIVE = Rule(lambda value: _is_number(value) and value > 0, "a number above 0")
STRETCH = Rule(lambda value: _is_number(value) and value >= 1, "a number of 1 or above")
FLAG = Rule(lambda value: isinstance(value, bool), "true or false")


def only(allowed: Any) -> Rule:
    """The rule of a field that is understood at one value alone."""
    return Rule(lambda value: value == allowed, f"{allowed!r}, the only one that is supported")


def faults(
    path: str,
    given: Mapping[str, Any],
    rules: Mapping[str, Rule],
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
