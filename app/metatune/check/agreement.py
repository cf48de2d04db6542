"""The estimator against another, exact one along the same directions.

Reverse-mode estimators against forward mode, dF·v pushed through the training; all others against
MixFlow. Both are exact for the training as it is computed, so that only rounding lies between.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from metatune.check.levels import ESTIMATOR, SAMPLING, Finding, graded
from metatune.check.subject import Draw, Sample, Subject
from metatune.hypergrad import EstimatorError, Forward, MixFlow, Reverse
from metatune.hypergrad.estimator import Estimator

CHUNK: Final = 2
"""Directions that forward mode pushes at a time, for the memory of as many states."""

ERRORS: Final = 3.0
"""Standard errors that a random estimate is allowed to be off."""

AMBER_ERROR, RED_ERROR = 0.01, 0.1
"""Relative error beyond standard errors."""


@dataclass(frozen=True)
class Agreement:
    """Two estimators along the same directions.

    Attributes:
        other: what it is compared with.
        relative_error: |difference| / |derivatives of the other|; None if it wasn't compared.
        excess: the same of what is beyond standard errors.
        problem: why it wasn't compared; empty if it was.
        finding: what it comes to.
    """

    other: str
    relative_error: float | None
    excess: float | None
    problem: str
    finding: Finding


def check_agreement(
    subject: Subject, draw: Draw, sample: Sample, directions: np.ndarray
) -> Agreement:
    """Compares.

    Args:
        subject: what is checked.
        draw: of the sample.
        sample: the hypergradient.
        directions: [D, N].
    """
    other = another(subject.estimator)
    name = type(other).__name__
    try:
        exact = subject.along(draw, f"derivatives by {name}", directions, other)
    except EstimatorError as error:
        return Agreement(name, None, None, str(error), Finding("amber", (str(error),)))
    off = np.abs(directions @ sample.gradient - exact)
    errors = np.sqrt(directions**2 @ sample.errors**2)
    scale = np.linalg.norm(exact) or np.finfo(float).tiny
    excess = float(np.linalg.norm(np.maximum(off - ERRORS * errors, 0.0)) / scale)
    finding = graded(excess, AMBER_ERROR, RED_ERROR, ESTIMATOR)
    if finding.level == "green" and ERRORS * np.linalg.norm(errors) > scale:
        finding = Finding("amber", (SAMPLING,))
    return Agreement(name, float(np.linalg.norm(off) / scale), excess, "", finding)


def another(estimator: Estimator) -> Estimator:
    """An exact estimator that works in another way."""
    if isinstance(estimator, MixFlow | Reverse):
        return Forward(estimator.segment, chunk=CHUNK)
    return MixFlow(estimator.segment)
