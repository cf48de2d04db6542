"""Whether the trainings work at all: finite numbers, and an objective that falls."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from metatune.check.levels import EPS_ROOT, GREEN, LEARNING_RATE, Finding
from metatune.check.numbers import Numbers

BLOWN_UP: Final = 0.1
"""Relative rise of the objective over a training beyond which it has blown up."""


@dataclass(frozen=True)
class Training:
    """What the trainings of all seeds came to.

    Attributes:
        objective_before: F(θ_0) of the first seed.
        objectives: F(θ_T), or its mean along the training, by seed.
        finite_losses: whether all inner losses and objectives are finite.
        finite_gradients: whether all hypergradients are.
        finding: what it comes to.
    """

    objective_before: float
    objectives: tuple[float, ...]
    finite_losses: bool
    finite_gradients: bool
    finding: Finding


def judge_training(numbers: Numbers) -> Training:
    """Looks at the trainings that hypergradients were taken of.

    A rise within the rounding of the objective is none. Held-out batches are the same before and
    after, so that there is no other noise.
    """
    before, found = numbers.before, numbers.samples
    objectives = tuple(sample.value for sample in found)
    losses = all(sample.finite_losses for sample in found)
    gradients = all(np.isfinite(sample.gradient).all() for sample in found)
    risen = objectives[0] - before
    if not losses or not np.isfinite(before) or risen > BLOWN_UP * abs(before):
        finding = Finding("red", (LEARNING_RATE,))
    elif not gradients:
        finding = Finding("red", (EPS_ROOT,))
    else:
        finding = Finding("amber", (LEARNING_RATE,)) if risen > numbers.rounding else GREEN
    return Training(before, objectives, losses, gradients, finding)
