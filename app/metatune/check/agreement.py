"""The estimator against another, exact one along the same directions.

Reverse-mode estimators are compared with forward mode, dF·v pushed through the training; all others
with MixFlow. Both are exact for the training as it is computed, so that only rounding lies between:
each derivative is a sum of terms of the objective's own size, rounded by eps |F| at the least, and
what is smaller than a few times that is not told from zero. A number of steps doesn't come into it:
derivatives grow with the steps as their sum does.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from metatune.check.levels import DAMPED, ESTIMATOR, ROUNDING, SAMPLING, Finding, graded, unresolved
from metatune.check.numbers import Compared, Numbers

ERRORS: Final = 3.0
"""Standard errors that a random estimate is allowed to be off."""

ROUNDINGS: Final = 10.0
"""Times the rounding of the objective that derivatives must be above, to be compared."""

AMBER_ERROR, RED_ERROR = 0.01, 0.1
"""Relative error beyond rounding and standard errors."""


@dataclass(frozen=True)
class Agreement:
    """Two estimators along the same directions.

    Attributes:
        other: what it is compared with.
        relative_error: |difference| / |derivatives of the other|; None if it wasn't compared, or
            these are zero.
        excess: the same of what is beyond rounding and standard errors.
        problem: why it wasn't compared; empty if it was.
        finding: what it comes to.
    """

    other: str
    relative_error: float | None
    excess: float | None
    problem: str
    finding: Finding


def judge_agreement(numbers: Numbers, compared: Compared) -> Agreement:
    """Compares."""
    other, derivatives, exact, errors, problem = compared
    if problem:
        return Agreement(other, None, None, problem, unresolved(problem))
    off = np.abs(derivatives - exact)
    scale = float(
        max(np.linalg.norm(exact), np.linalg.norm(numbers.rounding * np.ones(len(exact))))
    )
    allowed = ERRORS * errors + numbers.rounding
    error = float(np.linalg.norm(off) / np.linalg.norm(exact)) if exact.any() else None
    if scale == 0:
        # Neither has a derivative, or only the first has one.
        excess = float("inf") if off.any() else 0.0
    else:
        excess = float(np.linalg.norm(np.maximum(off - allowed, 0.0)) / scale)
    finding = graded(excess, AMBER_ERROR, RED_ERROR, ESTIMATOR)
    if numbers.samples[0].damped != 1 and finding.level != "green":
        return Agreement(other, error, excess, "", unresolved(DAMPED))
    if finding.level == "green":
        largest = np.linalg.norm([derivatives, exact])
        if ERRORS * np.linalg.norm(errors) > scale:
            finding = unresolved(SAMPLING)
        elif largest <= ROUNDINGS * numbers.rounding:
            finding = unresolved(ROUNDING)
    return Agreement(other, error, excess, "", finding)
