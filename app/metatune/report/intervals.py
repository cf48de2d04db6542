"""How sure a paired difference is: Student's t over the pairs."""

import math
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from scipy.special import stdtrit

CONFIDENCE: Final = 0.95
ENOUGH_PAIRS: Final = 5
"""Pairs from which on an interval is told. Of two its half is 12.7 standard errors, of three 4.3,
and the error itself is hardly known."""


class Interval(NamedTuple):
    """Where the mean of a difference lies, tuned minus default: negative is better.

    Attributes:
        low: 2.5 % of intervals so made lie above the truth.
        high: 2.5 % lie below it.
    """

    low: float
    high: float

    @property
    def half(self) -> float:
        """Half of its width."""
        return (self.high - self.low) / 2

    @property
    def beyond_noise(self) -> bool:
        """Whether zero lies outside."""
        return self.low > 0 or self.high < 0


def pairs(result: Mapping[str, Any]) -> int:
    """How many pairs of trainings a result is of."""
    return len(result.get("held_out_seeds") or ())


def interval(result: Mapping[str, Any]) -> Interval | None:
    """The 95 % confidence interval of the difference of a result, `d ± t s / √n`.

    `t` is the 97.5 % point of Student's t with n - 1 degrees of freedom; the n differences of the
    pairs are taken for normal.

    Args:
        result: the `result` of an artefact.

    Returns:
        The interval; None for fewer pairs than `ENOUGH_PAIRS`, too few to tell.

    Source: Student, The probable error of a mean, Biometrika 1908.
    """
    count, error = pairs(result), result.get("standard_error")
    if count < ENOUGH_PAIRS or error is None:
        return None
    half = float(stdtrit(count - 1, (1 + CONFIDENCE) / 2)) * error
    difference = result["difference"]
    return Interval(difference - half, difference + half) if math.isfinite(half) else None
