"""The checks on the result of an artefact: of what is read of it; the rest is the writer's."""

from collections.abc import Mapping
from typing import Any

from metatune.artefact.value_checks import ValueChecker, real
from metatune.recipe.faults import ABSENT, Fault

NUMBER = ((int, float, type(None)), "a number, or null of what isn't measured")
NUMBERS = (list, "a list of numbers")
RESULT: Mapping[str, tuple[Any, str]] = {
    "status": (str, "a string"),
    "unit": (str, "a string"),
    "best_outer_step": (int, "a whole number"),
    "outer_steps": (int, "a whole number"),
    "objective_before": NUMBER,
    "objective_after": NUMBER,
    "difference": NUMBER,
    "standard_error": NUMBER,
    "held_out_seeds": NUMBERS,
    "before": NUMBERS,
    "after": NUMBERS,
    "sharing": (Mapping, "an object"),
    "search": (Mapping, "an object"),
}
"""What is read of a result, as far as it is there."""
MEASURED = (
    *("best_outer_step", "outer_steps", "unit"),
    *("objective_before", "objective_after", "difference", "standard_error"),
    *("held_out_seeds", "before", "after"),
)
"""What the result of a search has that is complete."""
MEANS = ("objective_before", "objective_after", "difference")


def faults(result: Any, cure: str) -> list[Fault]:
    """What is wrong with a result.

    Args:
        result: as it stands in a document; what is no object is somebody else's fault to find.
        cure: what to do about any of the faults.
    """
    checker = ResultChecker(cure)
    if isinstance(result, Mapping):
        checker.result(result)
    return checker.faults


class ResultChecker(ValueChecker):
    """Checks a result and collects its faults."""

    def result(self, result: Mapping[str, Any]) -> None:
        """Checks all that is read of it."""
        for key, (kind, allowed) in RESULT.items():
            if key in result:
                self._is(f"result.{key}", result[key], kind, allowed)
        if result.get("status") != "complete":
            return
        for key in MEASURED:
            if key not in result:
                self._fault(f"result.{key}", ABSENT, "this key must be there")
            elif key in MEANS and not real(result[key]):
                self._fault(f"result.{key}", result[key], "must be a finite number")
        lists = {key: result.get(key) for key in ("held_out_seeds", "before", "after")}
        for key in ("before", "after"):
            for index, number in enumerate(lists[key] if isinstance(lists[key], list) else ()):
                if not real(number):
                    self._fault(f"result.{key}[{index}]", number, "must be a finite number")
        counts = {key: len(held) for key, held in lists.items() if isinstance(held, list)}
        if len(set(counts.values())) > 1:
            self._fault("result", counts, "must have as many seeds as losses before and after")
