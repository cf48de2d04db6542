"""Checks on single values of a document, which collect what is wrong with them."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from metatune.recipe.faults import ABSENT, Fault

SUM_TOLERANCE = 1e-9
"""How far a sum of float64 shares may be from one."""

NOT_NEGATIVE = "must be a finite number of 0 or above"


class ValueChecker:
    """Checks values one by one and collects their faults."""

    def __init__(self, cure: str):
        """`cure` is what to do about any of the faults."""
        self.cure = cure
        self.faults: list[Fault] = []

    def known(self, path: str, found: Any, names: Iterable[str] | None) -> None:
        """Checks that names are among those of the parameters; None where these aren't known."""
        known = None if names is None else set(names)
        for name in self.names(path, found):
            if known is not None and name not in known:
                self.fault(path, name, "must be a name of learning_rates.parameters")

    def names(self, path: str, value: Any) -> list[str]:
        """The names in a list, each once; none where it is something else."""
        if not self.is_a(path, value, list, "a list of names"):
            return []
        for index, name in enumerate(value):
            if not isinstance(name, str):
                self.fault(f"{path}[{index}]", name, "must be a string")
                return []
        seen: set[str] = set()
        for name in value:
            if name in seen:
                self.fault(path, name, "stands there twice; each name may once")
            seen.add(name)
        return value

    def curve(self, path: str, value: Any, count: int, of: str = "knots") -> bool:
        """Whether `value` is a list of `count` numbers of 0 or above."""
        if not self.is_a(path, value, list, "a list of numbers"):
            return False
        if len(value) != count:
            self.fault(f"{path}, length", len(value), f"must have one for each of {count} {of}")
            return False
        for index, number in enumerate(value):
            if not (real(number) and number >= 0):
                self.fault(f"{path}[{index}]", number, NOT_NEGATIVE)
                return False
        return True

    def knots(self, path: str, value: Any) -> int:
        """Returns how many knots there are."""
        if not self.is_a(path, value, list, "a list of fractions of training"):
            return 0
        if not value or value[0] != 0:
            self.fault(f"{path}[0]", value[0] if value else None, "must be 0, the first update")
        for index, number in enumerate(value):
            if not (real(number) and number < 1):
                self.fault(f"{path}[{index}]", number, "must be a fraction below 1")
                return len(value)
            if index and number <= value[index - 1]:
                problem = f"must be above the knot before it, {value[index - 1]!r}"
                self.fault(f"{path}[{index}]", number, problem)
        return len(value)

    def interpolation(self, path: str, value: Any) -> None:
        """Checks how values go on from their knots."""
        if value not in ("constant", "linear"):
            self.fault(path, value, "must be constant or linear")

    def count(self, path: str, value: Any) -> None:
        """Checks a whole number of 1 or above."""
        if not (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
            self.fault(path, value, "must be a whole number of 1 or above")

    def scheduled(self, path: str, value: Any, unit: str | None = None) -> int:
        """Checks the unit, if any, the interpolation and the knots; how many knots there are."""
        if unit is not None:
            self.equal(f"{path}.unit", value["unit"], unit)
        self.interpolation(f"{path}.interpolation", value["interpolation"])
        return self.knots(f"{path}.knots", value["knots"])

    def shapes(self, path: str, value: Any) -> bool:
        """Whether `value` is an object; checks that it holds lists of sizes."""
        if not self.is_a(path, value, Mapping, "an object"):
            return False
        for name, shape in value.items():
            if self.is_a(f"{path}.{name}", shape, list, "a list of sizes"):
                for axis, size in enumerate(shape):
                    self.count(f"{path}.{name}[{axis}]", size)
        return True

    def weights(self, path: str, held: np.ndarray, expected: list[int]) -> None:
        """Checks a tensor of finite float32 numbers."""
        if list(held.shape) != expected or held.dtype != np.float32:
            self.fault(path, f"{held.dtype} {list(held.shape)}", f"must be float32 {expected}")
        elif not np.isfinite(held).all():
            self.fault(path, float(held[~np.isfinite(held)][0]), "must be finite numbers")

    def sums_to_one(self, path: str, shares: Sequence[float]) -> None:
        """Checks shares."""
        if abs(math.fsum(shares) - 1) > SUM_TOLERANCE:
            self.fault(f"{path}, sum", math.fsum(shares), "shares must sum to 1")

    def rows(
        self, path: str, value: Any, unit: str, columns: str, more: tuple[str, ...] = ()
    ) -> Iterator[tuple[str, list[float]]]:
        """Checks a table of values, a row for each knot; yields the rows that are sound so far.

        Args:
            path: of the schedule.
            value: the schedule.
            unit: that it must have.
            columns: the key of the names of the columns.
            more: further keys of the schedule.
        """
        keys = ("unit", "interpolation", "knots", columns, *more, "weights")
        if value is None or not self.keys(path, value, keys):
            return
        count = self.scheduled(path, value, unit)
        names, rows = self.names(f"{path}.{columns}", value[columns]), value["weights"]
        if not names:
            self.fault(f"{path}.{columns}", [], f"must name at least one of the {columns}")
        elif self.is_a(f"{path}.weights", rows, list, "a list of lists"):
            if len(rows) != count:
                problem = f"must have a row for each of the {count} knots"
                self.fault(f"{path}.weights, length", len(rows), problem)
            for index, row in enumerate(rows):
                if self.curve(f"{path}.weights[{index}]", row, len(names), columns):
                    yield f"{path}.weights[{index}]", row

    def equal(self, path: str, value: Any, expected: str) -> None:
        """Checks the one value that is allowed."""
        if value != expected:
            self.fault(path, value, f"must be {expected!r}")

    def plain(self, path: str, value: Any) -> None:
        """Checks that `value` comes back from JSON as it is."""
        if isinstance(value, Mapping):
            for key, entry in value.items():
                if self.is_a(f"{path}, key", key, str, "a string"):
                    self.plain(f"{path}.{key}", entry)
        elif isinstance(value, list):
            for index, entry in enumerate(value):
                self.plain(f"{path}[{index}]", entry)
        elif not (value is None or isinstance(value, str | bool) or real(value)):
            problem = "must be a string, a finite number, true, false, null, a list or an object"
            self.fault(path, value, problem)

    def keys(
        self, path: str, value: Any, keys: tuple[str, ...], optional: tuple[str, ...] = ()
    ) -> bool:
        """Whether `value` is an object with exactly these keys; says what is missing or unknown."""
        if not self.is_a(path, value, Mapping, "an object"):
            return False
        missing = [key for key in keys if key not in value]
        surplus = [key for key in value if key not in (*keys, *optional)]
        for key in missing:
            self.fault(f"{path}.{key}", ABSENT, "this key must be there")
        for key in surplus:
            problem = f"an unknown key; allowed are {', '.join((*keys, *optional))}"
            self.fault(f"{path}.{key}", value[key], problem)
        return not missing and not surplus

    def is_a(self, path: str, value: Any, kind: Any, allowed: str) -> bool:
        """Whether `value` is of a type, or of one of several; true and false are no numbers."""
        numbers = kind is int or (isinstance(kind, tuple) and int in kind)
        if isinstance(value, kind) and not (numbers and isinstance(value, bool)):
            return True
        self.fault(path, value, f"must be {allowed}")
        return False

    def fault(self, path: str, value: Any, problem: str) -> None:
        """Adds a fault."""
        self.faults.append(Fault(path, value, problem, self.cure))


def real(value: Any) -> bool:
    """Whether `value` is a finite number of Python's own (a bool is none)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
