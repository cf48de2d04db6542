"""Metasmoothness: whether the trained parameters move steadily with the meta-parameters.

Its value S is that of `smoothness`. What is missing from one grows with the horizon. To the first
order in the rates, θ_T moves along v in proportion to the steps T, which turns no parameter back;
it is turned by the second order, by how gradients answer to parameters that have moved already:

    θ_T - θ_0 = -Σ_t r g_t,   dθ_T/dη = -Σ_t r (g_t + H dθ_t/dη)   ~   T + T² r H / 2 + ...

so that curvature over slope, and with it the share of movement that turns back, 1 - S, is about
proportional to T before it saturates, at 1 - S = 1 of chaos. A shortened check over a fraction f
of the steps foresees 1 - (1 - S) / f for the recipe's own horizon. That is an extrapolation, so
that it leaves a check unresolved, but red is only a training that is rough at the steps it took.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from metatune.check.levels import LEARNING_RATE, LONGER, ROUNDING, Finding, graded, unresolved
from metatune.check.numbers import Moved, Numbers

AMBER_SMOOTHNESS, RED_SMOOTHNESS = 0.6, 0.3
"""Least metasmoothness."""

RESOLVED: Final = 0.5
"""Least share of all movement that is of parameters that move by more than their rounding."""


@dataclass(frozen=True)
class Metasmoothness:
    """Metasmoothness along one direction.

    Attributes:
        value: S.
        step: h, for each coordinate of η.
        foreseen: S over the steps of the recipe; the same of an unshortened check.
        finding: what it comes to.
    """

    value: float
    step: float
    foreseen: float
    finding: Finding


def judge_metasmoothness(numbers: Numbers, moved: Moved) -> Metasmoothness:
    """What the movement of the trained parameters comes to."""
    value = moved.smoothness
    foreseen = value
    if numbers.fraction < 1 and value > 0:
        foreseen = max(1 - (1 - value) / numbers.fraction, 0.0)
    finding = graded(-value, -AMBER_SMOOTHNESS, -RED_SMOOTHNESS, LEARNING_RATE)
    if np.isfinite(value) and moved.resolved < RESOLVED:
        finding = unresolved(ROUNDING)
    elif finding.level == "green" and foreseen < AMBER_SMOOTHNESS:
        finding = unresolved(LONGER)
    return Metasmoothness(value, numbers.settings.step, foreseen, finding)
