"""Linearity: whether the derivative holds over the step that a search takes.

A derivative may be right, and be that of a wrinkle: over a step of h in each meta-parameter the
objective then has another slope, often of the other sign. Adam's first updates, nearly the signs of
gradients, leave such wrinkles where the warmup has no step for them, without any growth of the
adjoint. Along the random directions v of the
differences, with derivatives d (of the exact estimator that the recipe's is compared with, where
there is one) and slopes s over that step, the part of the derivative that is left is the slope of
s over d through zero,

    Σ s d / Σ d²,

which is 1 where the objective is a straight line over the step, and may leave 1 by its curvature's
change alone, for a central difference has none of an even order.

Source: the distance that a linearisation holds for, as the agreement ratio of trust regions asks
(Conn, Gould & Toint, Trust-Region Methods, 2000, section 6.1).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from metatune.check.levels import (
    GREEN,
    LEARNING_RATE,
    SAMPLING,
    STRIDE,
    WRINKLED,
    Finding,
    unresolved,
)
from metatune.check.numbers import Numbers, Sides

LEAST, MOST = 0.5, 2.0
"""The part of the derivative that is left, within which a search is told where to go."""


@dataclass(frozen=True)
class Linearity:
    """How much of the derivative is left over a search's step.

    Attributes:
        step: h, for each coordinate of η.
        left: Σ s d / Σ d².
        derivatives: d, along each direction of length one.
        slopes: s, likewise.
        finding: what it comes to.
    """

    step: float
    left: float
    derivatives: tuple[float, ...]
    slopes: tuple[float, ...]
    finding: Finding


def judge_linearity(numbers: Numbers) -> Linearity | None:
    """What the slopes over the step come to; None where none were measured."""
    if not numbers.over_step:
        return None
    derivatives = np.array([each.derivative for each in numbers.over_step])
    errors = np.array([each.error for each in numbers.over_step])
    if numbers.compared is not None and not numbers.compared.problem:
        derivatives, errors = numbers.compared.exact, np.zeros(len(errors))
    slopes = np.array([_slope(each) for each in numbers.over_step])
    left = _left(slopes, derivatives)
    found = (numbers.settings.step, left, tuple(derivatives.tolist()), tuple(slopes.tolist()))
    if not np.isfinite(slopes).all():
        return Linearity(*found, Finding("amber", (LEARNING_RATE,)))
    if np.linalg.norm(errors) > np.linalg.norm(derivatives) / 2:
        return Linearity(*found, unresolved(SAMPLING))
    if LEAST <= left <= MOST:
        return Linearity(*found, GREEN)
    if numbers.shortened:
        return Linearity(*found, unresolved(STRIDE))
    return Linearity(*found, Finding("amber", (WRINKLED,)))


def left_over_step(sides: Sequence[Sides]) -> float:
    """The part of exact derivatives that is left over a step; nan where a training diverges.

    Args:
        sides: as of `slopes_over_step`.
    """
    return _left(np.array(list(map(_slope, sides))), np.array([each.derivative for each in sides]))


def _left(slopes: np.ndarray, derivatives: np.ndarray) -> float:
    square = float(derivatives @ derivatives)
    return float(slopes @ derivatives) / square if square else 1.0


def _slope(sides: Sides) -> float:
    ((epsilon, (above, below)),) = sides.values.items()
    return (above - below) / (2 * epsilon) if np.isfinite([above, below]).all() else np.nan
