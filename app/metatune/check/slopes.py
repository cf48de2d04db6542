"""The objective on either side of η, at the ε that resolve its slope.

A derivative is the limit of small ε, so that the finest scale at which the objective can be told
from its rounding is the one to look at: a coarser one may have another slope, as where Adam's first
updates, nearly the signs of gradients, change over far less than a search's step. The uncertainty
of a central difference D(ε) is

    u(ε) = |D(ε) - D(ε')| + eps |F| / ε,    ε' the next larger one:

what a larger step changes, which bounds what a smaller one would where the objective is smooth at
that scale (it is (ε'/ε)² - 1 = 9 times the error, of order ε²), and the rounding of the objective
on both sides, up to eps |F| each, over 2ε. That is the least: what a training adds isn't known.
Differences are taken along each direction by itself, downhill in u: at first at the smallest ε
whose rounding is a hundredth of the slope, then at smaller ones, then at larger ones, until u is
small.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np

from metatune.check.numbers import Kind, Sample, Sides
from metatune.check.subject import FixedDraw

EPSILONS: Final = tuple(float(10 ** (k / 2)) for k in range(-8, 0))
"""Steps of η, units of log rate and of logits along a direction of length one."""

ROUNDED: Final = 0.01
"""Rounding, over the slope, at the ε to begin with."""

SETTLED: Final = 0.05
"""Uncertainty over the slope, where no other ε is looked at."""

Pairs = Mapping[float, tuple[float, float]]


class CentralDifference(NamedTuple):
    """A central difference.

    Attributes:
        epsilon: its ε, one of `EPSILONS`.
        value: D(ε); nan where nothing is finite.
        noise: its uncertainty u(ε); infinite where nothing is finite.
    """

    epsilon: float
    value: float
    noise: float


def difference(values: Pairs, rounding: float) -> CentralDifference:
    """The difference at the valley of u that the measured ε end in.

    Args:
        values: F(η + εv) and F(η - εv), by ε; neighbours of `EPSILONS`.
        rounding: of the objective, eps |F|.
    """
    known = differences(values, rounding)
    finite = [one for one in known.values() if np.isfinite(one.noise)]
    if finite:
        return min(finite, key=lambda one: one.noise)
    return CentralDifference(min(values), np.nan, np.inf)


def differences(values: Pairs, rounding: float) -> dict[int, CentralDifference]:
    """All differences that have a larger neighbour, by the place of ε in `EPSILONS`."""
    slopes = {
        EPSILONS.index(epsilon): (above - below) / (2 * epsilon)
        for epsilon, (above, below) in values.items()
    }
    found = {}
    for at, slope in slopes.items():
        if at + 1 in slopes:
            apart = abs(slope - slopes[at + 1])
            noise = apart + rounding / EPSILONS[at]
            found[at] = CentralDifference(
                EPSILONS[at], slope, noise if np.isfinite(noise) else np.inf
            )
    return found


def wanted(values: Pairs, rounding: float, slope: float) -> int | None:
    """The place in `EPSILONS` of the next difference to look at; None where all is known.

    Args:
        values: what is measured already.
        rounding: of the objective, eps |F|.
        slope: about how large derivatives along such directions are.
    """
    known = differences(values, rounding)
    if not known:
        return _first(rounding, slope)
    best = min(known, key=lambda at: known[at].noise)
    chosen = known[best]
    if chosen.noise <= SETTLED * max(abs(chosen.value), slope):
        return None
    # Downhill from an end of what is known; to smaller ones first.
    if best == min(known) and best > 0:
        return best - 1
    if best == max(known) and best + 2 < len(EPSILONS):
        return best + 1
    return None


def _first(rounding: float, slope: float) -> int:
    fine = [at for at, epsilon in enumerate(EPSILONS) if rounding <= ROUNDED * slope * epsilon]
    return min([*fine, len(EPSILONS) - 2])


def random_directions(size: int, count: int, seed: int) -> np.ndarray:
    """Random unit directions, [count, size], with entries of one magnitude."""
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], (count, size))
    return signs / np.sqrt(size)


def largest_coordinates(gradient: np.ndarray, count: int) -> np.ndarray:
    """Unit directions along the coordinates of the largest derivatives, [count, N]."""
    order = np.argsort(-np.abs(gradient), kind="stable")[:count]
    return np.eye(len(gradient))[order]


def measured_slopes(
    held: FixedDraw, sample: Sample, random: np.ndarray, names: Sequence[str], rounding: float
) -> tuple[Sides, ...]:
    """The objective along all directions.

    Args:
        held: the trainings, at the draw of the sample.
        sample: the hypergradient.
        random: directions, [D, N]; as many coordinates are looked at.
        names: of the coordinates, [N].
        rounding: of the objective, eps |F|.
    """
    coordinates = largest_coordinates(sample.gradient, len(random))
    kinds: dict[Kind, tuple[np.ndarray, list[str]]] = {
        "random": (random, [f"random {i + 1}" for i in range(len(random))]),
        "coordinate": (coordinates, [names[int(row.argmax())] for row in coordinates]),
    }
    found = []
    for kind, (directions, labels) in kinds.items():
        # One magnitude for all of a kind, so that a derivative that is small by chance does.
        slope = float(np.sqrt(np.mean((directions @ sample.gradient) ** 2)))
        for direction, label in zip(directions, labels, strict=True):
            # Standard errors of coordinates, as if they were independent.
            along = direction != 0
            error = float(np.linalg.norm(direction[along] * sample.errors[along]))
            values = _looked_at(_objective(held, direction, label), rounding, slope)
            found.append(Sides(label, kind, float(direction @ sample.gradient), error, values))
    return tuple(found)


def slopes_over_step(
    held: FixedDraw, sample: Sample, random: np.ndarray, step: float
) -> tuple[Sides, ...]:
    """The objective a search's step away, on either side of η, along random directions.

    Args:
        held: the trainings, at the draw of the sample.
        sample: the hypergradient.
        random: directions of length one, with entries of one magnitude, [D, N].
        step: of each coordinate.
    """
    epsilon = step * math.sqrt(random.shape[1])
    found = []
    for number, direction in enumerate(random, 1):
        label = f"random {number}"
        error = float(np.linalg.norm(direction * sample.errors))
        sides = _objective(held, direction, label)(epsilon, False)
        along = float(direction @ sample.gradient)
        found.append(Sides(label, "random", along, error, {epsilon: sides}))
    return tuple(found)


Objective = Callable[[float, bool], tuple[float, float]]


def _objective(held: FixedDraw, direction: np.ndarray, label: str) -> Objective:
    def either_side(epsilon: float, further: bool) -> tuple[float, float]:
        what = f"central difference, {label}, ε = {epsilon:.2g}"
        above, below = (
            held.measured(sign * epsilon * direction, what, further) for sign in (1, -1)
        )
        return above, below

    return either_side


def _looked_at(objective: Objective, rounding: float, slope: float) -> Pairs:
    values: dict[float, tuple[float, float]] = {}
    while (at := wanted(values, rounding, slope)) is not None:
        further = len(values) >= 2
        for epsilon in EPSILONS[at : at + 2]:
            if epsilon not in values:
                values[epsilon] = objective(epsilon, further)
    return values
