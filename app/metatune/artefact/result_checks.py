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
SOME = ((int, float), "a number")
WORDS = (str, "a string")
SEARCH: Mapping[str, tuple[Any, str]] = {
    "ended": WORDS,
    "held_out": ((Mapping, type(None)), "an object or null"),
    "moved": (Mapping, "an object"),
    "more": ((str, type(None)), "a string or null"),
    "jumps": (list, "a list"),
}
"""What is read of how a search ended."""
TREND: Mapping[str, tuple[Any, str]] = {
    "points": NUMBERS,
    "per_step": SOME,
    "standard_error": NUMBER,
}
JUMP: Mapping[str, tuple[Any, str]] = {
    "step": (int, "a whole number"),
    "tunable": WORDS,
    "norm": SOME,
    "before": SOME,
    "rate_factor": NUMBER,
    "inner_steps": (int, "a whole number"),
    "response": WORDS,
}
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
                self.is_a(f"result.{key}", result[key], kind, allowed)
        if isinstance(result.get("search"), Mapping):
            self._search("result.search", result["search"])
        if result.get("status") != "complete":
            return
        for key in MEASURED:
            if key not in result:
                self.fault(f"result.{key}", ABSENT, "this key must be there")
            elif key in MEANS and not real(result[key]):
                self.fault(f"result.{key}", result[key], "must be a finite number")
        lists = {key: result.get(key) for key in ("held_out_seeds", "before", "after")}
        for key in ("before", "after"):
            numbers = lists[key]
            for index, number in enumerate(numbers if isinstance(numbers, list) else ()):
                if not real(number):
                    self.fault(f"result.{key}[{index}]", number, "must be a finite number")
        counts = {key: len(held) for key, held in lists.items() if isinstance(held, list)}
        if len(set(counts.values())) > 1:
            self.fault("result", counts, "must have as many seeds as losses before and after")

    def _search(self, path: str, search: Mapping[str, Any]) -> None:
        """How the search ended."""
        self._fields(path, search, SEARCH)
        trend = search.get("held_out")
        if isinstance(trend, Mapping):
            self._fields(f"{path}.held_out", trend, TREND)
            points = trend.get("points")
            if isinstance(points, list) and not (len(points) == 2 and all(map(real, points))):
                self.fault(f"{path}.held_out.points", points, "must be two numbers")
        moved = search.get("moved")
        for key, value in moved.items() if isinstance(moved, Mapping) else ():
            self.is_a(f"{path}.moved.{key}", value, *SOME)
        jumps = search.get("jumps")
        for index, each in enumerate(jumps if isinstance(jumps, list) else ()):
            here = f"{path}.jumps[{index}]"
            if self.is_a(here, each, Mapping, "an object"):
                self._fields(here, each, JUMP)
                if real(each.get("before")) and each["before"] <= 0:
                    self.fault(f"{here}.before", each["before"], "must be above 0")

    def _fields(
        self, path: str, value: Mapping[str, Any], fields: Mapping[str, tuple[Any, str]]
    ) -> None:
        """Checks that an object has some fields, of their kinds."""
        for key, (kind, allowed) in fields.items():
            if key not in value:
                self.fault(f"{path}.{key}", ABSENT, "this key must be there")
            else:
                self.is_a(f"{path}.{key}", value[key], kind, allowed)
