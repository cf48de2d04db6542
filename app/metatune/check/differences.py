"""The hypergradient against central differences of whole trainings.

`(F(η + εv) - F(η - εv)) / 2ε` with data, start and held-out batches held fixed, along random unit
directions and along the coordinates of the largest derivatives. How ε is chosen, and what the noise
of a difference is, stands in `slopes`. Nothing is judged within it: a derivative is off by what is
beyond, relative to the slopes or to their noise, whichever is more. Where noise is most of the
slopes and derivatives lie within, there is nothing to judge by, and the check is not resolved.

No threshold depends on the steps. Derivatives grow with them as slopes do; what noise rounding
leaves is that of the objective, not of its derivative, so that over fewer steps it is more of a
slope: it is measured along, and judged beyond.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from metatune.check.levels import (
    ESTIMATOR,
    LEARNING_RATE,
    ROUNDING,
    SAMPLING,
    UNSETTLED,
    Finding,
    graded,
    unresolved,
    worst,
)
from metatune.check.numbers import Kind, Numbers, Sides
from metatune.check.slopes import difference

NOISES: Final = 2.0
"""Times its noise that a difference is allowed to be off, and must be above to have a sign."""

ERRORS: Final = 3.0
"""Standard errors that a random estimate is allowed to be off."""

AMBER_ERROR, RED_ERROR = 0.05, 0.25
"""Relative error beyond noise."""

AMBER_SIGNS, RED_SIGNS = 1.0, 0.8
"""Least share of equal signs, of the directions whose difference has one."""

CONVERGED: Final = 0.5
"""Most relative noise of differences that converge in ε."""

ROUNDINGS: Final = 10.0
"""Times the rounding of the objective that noise may be and pass for rounding."""


class DirectionRow(NamedTuple):
    """A direction.

    Attributes:
        name: its coordinate, or `random 1`.
        derivative: v·g, of the estimator.
        difference: the central difference.
        noise: its uncertainty.
        error: standard error of v·g, zero of an exact estimator.
        epsilon: ε of the difference.
        kind: of direction.
    """

    name: str
    derivative: float
    difference: float
    noise: float
    error: float
    epsilon: float
    kind: Kind


@dataclass(frozen=True)
class Differences:
    """Hypergradient and central differences along directions.

    Attributes:
        rows: the directions.
        sign_agreement: share of equal signs, of the directions whose difference stands out of its
            noise; None if none does.
        resolved: how many do.
        spearman: rank correlation of derivatives and differences; None of fewer than 3.
        relative_error: |derivatives - differences| / |differences|.
        excess: what is beyond noise and standard errors, over |differences| or |noise|.
        relative_noise: |noise| / |differences|.
        ratio: |derivatives| / |differences|, or |noise|.
        finding: what it comes to.
    """

    rows: tuple[DirectionRow, ...]
    sign_agreement: float | None
    resolved: int
    spearman: float | None
    relative_error: float
    excess: float
    relative_noise: float
    ratio: float
    finding: Finding


def judge_differences(numbers: Numbers) -> Differences:
    """Compares."""
    return compared(rows(numbers.slopes, numbers.rounding), numbers.rounding)


def rows(slopes: Sequence[Sides], rounding: float) -> list[DirectionRow]:
    """The directions, each with the difference that its slope is best known by.

    Args:
        slopes: what was measured.
        rounding: of the objective, eps |F|.
    """
    found = []
    for slope in slopes:
        epsilon, value, noise = difference(slope.values, rounding)
        its = (slope.derivative, value, noise, slope.error, epsilon)
        found.append(DirectionRow(slope.name, *its, slope.kind))
    return found


def compared(rows: Sequence[DirectionRow], rounding: float) -> Differences:
    """What the rows come to.

    Args:
        rows: the directions.
        rounding: of the objective.
    """
    derivative, difference, noise, error, epsilon = (
        np.array([getattr(row, name) for row in rows])
        for name in ("derivative", "difference", "noise", "error", "epsilon")
    )
    slopes, noises = (float(np.linalg.norm(values)) for values in (difference, noise))
    relative_noise = _over(noises, slopes)
    off = np.abs(derivative - difference)
    allowed = NOISES * noise + ERRORS * error
    with np.errstate(invalid="ignore"):  # infinite noise, where trainings diverge
        excess = _over(float(np.linalg.norm(np.maximum(off - allowed, 0.0))), max(slopes, noises))
    clear = np.abs(difference) > allowed
    signs = np.sign(derivative)[clear] == np.sign(difference)[clear]
    agreement = float(signs.mean()) if len(signs) else None
    if not np.isfinite([*difference, *noise]).all():
        finding = Finding("red", (LEARNING_RATE,))
    else:
        finding = graded(excess, AMBER_ERROR, RED_ERROR, ESTIMATOR)
        if agreement is not None:
            by_sign = graded(-agreement, -AMBER_SIGNS, -RED_SIGNS, ESTIMATOR)
            finding = worst((finding, by_sign))
        if finding.level == "green" and (agreement is None or relative_noise > CONVERGED):
            rounded = noises <= ROUNDINGS * np.linalg.norm(rounding / epsilon)
            hidden = ROUNDING if rounded else UNSETTLED
            finding = unresolved(SAMPLING if error.any() and agreement is None else hidden)
    return Differences(
        tuple(rows),
        agreement,
        int(clear.sum()),
        spearman(derivative, difference),
        _over(float(np.linalg.norm(off)), slopes),
        excess,
        relative_noise,
        _over(float(np.linalg.norm(derivative)), max(slopes, noises)),
        finding,
    )


def spearman(a: np.ndarray, b: np.ndarray) -> float | None:
    """Rank correlation of numbers without ties; None of fewer than 3.

    Source: Spearman, The proof and measurement of association between two things, 1904.
    """
    if len(a) < 3:
        return None
    ranks = np.argsort(np.argsort([a, b], axis=1), axis=1)
    return float(np.asarray(np.corrcoef(ranks))[0, 1])


def _over(part: float, whole: float) -> float:
    """A share; of nothing, none or infinitely much."""
    if whole == 0:
        return 0.0 if part == 0 else float("inf")
    return part / whole
