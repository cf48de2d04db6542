"""The hypergradient against central differences of whole trainings.

`(F(η + εv) - F(η - εv)) / 2ε` with data, start and held-out batches held fixed, along random unit
directions and along the coordinates of the largest derivatives. Too large an ε sees the curvature,
too small a one the rounding, and where trainings are chaotic there is no good one: ε is swept for
the first direction of each kind, and that pair of neighbours is taken whose differences agree best.
How far the two are apart along a direction is its noise.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from metatune.check.levels import (
    ESTIMATOR,
    LEARNING_RATE,
    ROUNDING,
    SAMPLING,
    Finding,
    graded,
    worst,
)
from metatune.check.subject import Held, Sample, Subject, coordinate_names

EPSILONS: Final = tuple(float(10 ** (k / 2)) for k in range(-6, 0))
"""Steps of η, units of log rate and of logits along a direction of length one."""

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


class Row(NamedTuple):
    """A direction.

    Attributes:
        name: its coordinate, or `random 1`.
        derivative: v·g, of the estimator.
        difference: the central difference.
        noise: how far the differences of two neighbouring ε are apart.
        error: standard error of v·g, zero of an exact estimator.
    """

    name: str
    derivative: float
    difference: float
    noise: float
    error: float


@dataclass(frozen=True)
class Differences:
    """Hypergradient and central differences along directions.

    Attributes:
        rows: the directions.
        epsilons: ε that was chosen, by kind of direction.
        sign_agreement: share of equal signs, of the directions whose difference stands out of its
            noise; None if none does.
        resolved: how many do.
        spearman: rank correlation of derivatives and differences; None of fewer than 3.
        relative_error: |derivatives - differences| / |differences|.
        excess: the same of what is beyond noise and standard errors.
        relative_noise: |noise| / |differences|.
        ratio: |derivatives| / |differences|.
        finding: what it comes to.
    """

    rows: tuple[Row, ...]
    epsilons: dict[str, float]
    sign_agreement: float | None
    resolved: int
    spearman: float | None
    relative_error: float
    excess: float
    relative_noise: float
    ratio: float
    finding: Finding


def random_directions(size: int, count: int, seed: int) -> np.ndarray:
    """Random unit directions, [count, size], with entries of one magnitude."""
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], (count, size))
    return signs / np.sqrt(size)


def largest_coordinates(gradient: np.ndarray, count: int) -> np.ndarray:
    """Unit directions along the coordinates of the largest derivatives, [count, N]."""
    order = np.argsort(-np.abs(gradient), kind="stable")[:count]
    return np.eye(len(gradient))[order]


def check_differences(
    subject: Subject, held: Held, sample: Sample, random: np.ndarray
) -> Differences:
    """Compares.

    Args:
        subject: what is checked.
        held: its trainings at the draw of the sample.
        sample: the hypergradient.
        random: directions, [D, N]; as many coordinates are looked at.
    """
    coordinates = largest_coordinates(sample.gradient, len(random))
    names = coordinate_names(subject)
    kinds = {
        "random": (random, [f"random {i + 1}" for i in range(len(random))]),
        "coordinate": (coordinates, [names[int(row.argmax())] for row in coordinates]),
    }
    rows, epsilons, smallest = [], {}, []
    for kind, (directions, labels) in kinds.items():
        found, pair = _measured(held, directions, labels)
        epsilons[kind] = pair[0]
        smallest += [pair[0]] * len(directions)
        for direction, label, (difference, noise) in zip(directions, labels, found, strict=True):
            # Standard errors of coordinates, as if they were independent.
            along = direction != 0
            error = float(np.linalg.norm(direction[along] * sample.errors[along]))
            derivative = float(direction @ sample.gradient)
            rows.append(Row(label, derivative, difference, noise, error))
    dtype = np.finfo(subject.flat.dtype)
    rounding = float(dtype.eps) * abs(sample.value) / np.array(smallest)
    return compared(rows, epsilons, rounding)


def compared(rows: Sequence[Row], epsilons: dict[str, float], rounding: np.ndarray) -> Differences:
    """What the rows come to.

    Args:
        rows: the directions.
        epsilons: that were chosen.
        rounding: of each difference, by the rounding of the objective alone.
    """
    derivative, difference, noise, error = (
        np.array([getattr(row, name) for row in rows])
        for name in ("derivative", "difference", "noise", "error")
    )
    scale = np.linalg.norm(difference) or np.finfo(float).tiny
    off = np.abs(derivative - difference)
    allowed = NOISES * noise + ERRORS * error
    excess = float(np.linalg.norm(np.maximum(off - allowed, 0.0)) / scale)
    clear = np.abs(difference) > allowed
    signs = np.sign(derivative)[clear] == np.sign(difference)[clear]
    agreement = float(signs.mean()) if len(signs) else None
    relative_noise = float(np.linalg.norm(noise) / scale)
    if not np.isfinite(relative_noise):
        finding = Finding("red", (LEARNING_RATE,))
    elif relative_noise > CONVERGED:
        rounded = np.linalg.norm(noise) <= ROUNDINGS * np.linalg.norm(rounding)
        finding = Finding("amber", (ROUNDING,)) if rounded else Finding("red", (LEARNING_RATE,))
    else:
        finding = graded(excess, AMBER_ERROR, RED_ERROR, ESTIMATOR)
        if agreement is None:
            finding = Finding("amber", (SAMPLING if error.any() else ROUNDING,))
        else:
            by_sign = graded(-agreement, -AMBER_SIGNS, -RED_SIGNS, ESTIMATOR)
            finding = worst((finding, by_sign))
    return Differences(
        tuple(rows),
        epsilons,
        agreement,
        int(clear.sum()),
        spearman(derivative, difference),
        float(np.linalg.norm(off) / scale),
        excess,
        relative_noise,
        float(np.linalg.norm(derivative) / scale),
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


def _measured(
    held: Held, directions: np.ndarray, labels: Sequence[str]
) -> tuple[list[tuple[float, float]], tuple[float, float]]:
    """Difference and noise of each direction, and the pair of ε that they were measured at."""

    def at(index: int) -> Callable[[float], float]:
        def difference(epsilon: float) -> float:
            what = f"central difference, {labels[index]}, ε = {epsilon:.2g}"
            above, below = (
                held.measured(sign * epsilon * directions[index], what) for sign in (1, -1)
            )
            return (above - below) / (2 * epsilon)

        return difference

    swept = np.array([at(0)(epsilon) for epsilon in EPSILONS])
    with np.errstate(invalid="ignore"):  # infinite minus infinite, where trainings diverge
        apart = np.abs(np.diff(swept))
    best = int(np.argmin(np.where(np.isfinite(apart), apart, np.inf)))
    pair = EPSILONS[best], EPSILONS[best + 1]
    found = [(float(swept[best]), float(apart[best]))]
    for index in range(1, len(directions)):
        one, other = (at(index)(epsilon) for epsilon in pair)
        found.append((one, abs(one - other)))
    return found, pair
