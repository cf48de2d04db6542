"""Checks on single values of a document, which collect what is wrong with them."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from metatune.recipe.faults import ABSENT, Fault

NOT_NEGATIVE = "must be a finite number of 0 or above"


class ValueChecker:
    """Checks values one by one and collects their faults."""

    def __init__(self, cure: str):
        """`cure` is what to do about any of the faults."""
        self.cure = cure
        self.faults: list[Fault] = []

    def _known(self, path: str, found: Any, names: Iterable[str] | None) -> None:
        known = None if names is None else set(names)
        for name in self._names(path, found):
            if known is not None and name not in known:
                self._fault(path, name, "must be a name of learning_rates.parameters")

    def _names(self, path: str, value: Any) -> list[str]:
        if not self._is(path, value, list, "a list of names"):
            return []
        for index, name in enumerate(value):
            if not isinstance(name, str):
                self._fault(f"{path}[{index}]", name, "must be a string")
                return []
        seen: set[str] = set()
        for name in value:
            if name in seen:
                self._fault(path, name, "stands there twice; each name may once")
            seen.add(name)
        return value

    def _curve(self, path: str, value: Any, count: int, of: str = "knots") -> bool:
        """Whether `value` is a list of `count` numbers of 0 or above."""
        if not self._is(path, value, list, "a list of numbers"):
            return False
        if len(value) != count:
            self._fault(f"{path}, length", len(value), f"must have one for each of {count} {of}")
            return False
        for index, number in enumerate(value):
            if not (real(number) and number >= 0):
                self._fault(f"{path}[{index}]", number, NOT_NEGATIVE)
                return False
        return True

    def _knots(self, path: str, value: Any) -> int:
        """Returns how many knots there are."""
        if not self._is(path, value, list, "a list of fractions of training"):
            return 0
        if not value or value[0] != 0:
            self._fault(f"{path}[0]", value[0] if value else None, "must be 0, the first update")
        for index, number in enumerate(value):
            if not (real(number) and number < 1):
                self._fault(f"{path}[{index}]", number, "must be a fraction below 1")
                return len(value)
            if index and number <= value[index - 1]:
                problem = f"must be above the knot before it, {value[index - 1]!r}"
                self._fault(f"{path}[{index}]", number, problem)
        return len(value)

    def _interpolation(self, path: str, value: Any) -> None:
        if value not in ("constant", "linear"):
            self._fault(path, value, "must be constant or linear")

    def _count(self, path: str, value: Any) -> None:
        if not (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
            self._fault(path, value, "must be a whole number of 1 or above")

    def _equal(self, path: str, value: Any, expected: str) -> None:
        if value != expected:
            self._fault(path, value, f"must be {expected!r}")

    def _plain(self, path: str, value: Any) -> None:
        """Checks that `value` comes back from JSON as it is."""
        if isinstance(value, Mapping):
            for key, entry in value.items():
                if self._is(f"{path}, key", key, str, "a string"):
                    self._plain(f"{path}.{key}", entry)
        elif isinstance(value, list):
            for index, entry in enumerate(value):
                self._plain(f"{path}[{index}]", entry)
        elif not (value is None or isinstance(value, str | bool) or real(value)):
            problem = "must be a string, a finite number, true, false, null, a list or an object"
            self._fault(path, value, problem)

    def _keys(
        self, path: str, value: Any, keys: tuple[str, ...], optional: tuple[str, ...] = ()
    ) -> bool:
        """Whether `value` is an object with exactly these keys; says what is missing or unknown."""
        if not self._is(path, value, Mapping, "an object"):
            return False
        missing = [key for key in keys if key not in value]
        surplus = [key for key in value if key not in (*keys, *optional)]
        for key in missing:
            self._fault(f"{path}.{key}", ABSENT, "this key must be there")
        for key in surplus:
            problem = f"an unknown key; allowed are {', '.join((*keys, *optional))}"
            self._fault(f"{path}.{key}", value[key], problem)
        return not missing and not surplus

    def _is(self, path: str, value: Any, kind: Any, allowed: str) -> bool:
        """`kind` is a type or several; true and false are no numbers."""
        numbers = kind is int or (isinstance(kind, tuple) and int in kind)
        if isinstance(value, kind) and not (numbers and isinstance(value, bool)):
            return True
        self._fault(path, value, f"must be {allowed}")
        return False

    def _fault(self, path: str, value: Any, problem: str) -> None:
        self.faults.append(Fault(path, value, problem, self.cure))


def real(value: Any) -> bool:
    """Whether `value` is a finite number of Python's own (a bool is none)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
