"""Metasmoothness: whether the trained parameters move steadily with the meta-parameters.

From three trainings along a direction v, with A(η) = θ_T:

    Δ(η) = (A(η + hv) - A(η)) / h
    d    = |A(η + 2hv) - A(η)|
    S    = sign(Δ(η))ᵀ diag(d / |d|₁) sign(Δ(η + hv)),  from -1 to 1

the agreement of the parameters' directions before and after the step, each parameter counting for
as much as it moves. A trained parameter that moves on is 1, one that turns back is -1; chaos is
about 0. Here v has entries of ±1, and h is the step that a search takes.

Source: Engstrom et al., Optimizing ML Training with Metagradient Descent, 2025, Definition 2,
arXiv 2503.13751.
"""

from dataclasses import dataclass

import numpy as np
from jax.flatten_util import ravel_pytree

from metatune.check.levels import LEARNING_RATE, Finding, graded
from metatune.check.subject import Held

AMBER_SMOOTHNESS, RED_SMOOTHNESS = 0.6, 0.3
"""Least metasmoothness."""


@dataclass(frozen=True)
class Metasmoothness:
    """Metasmoothness along one direction.

    Attributes:
        value: S.
        step: h, for each coordinate of η.
        finding: what it comes to.
    """

    value: float
    step: float
    finding: Finding


def check_metasmoothness(held: Held, signs: np.ndarray, step: float) -> Metasmoothness:
    """Three trainings.

    Args:
        held: the trainings.
        signs: v, [N].
        step: h.
    """
    what = "metasmoothness, training {} of 3"
    trained = [
        np.asarray(ravel_pytree(held.trained(k * step * signs, what.format(k + 1)))[0], np.float64)
        for k in range(3)
    ]
    value = metasmoothness(*trained)
    finding = graded(-value, -AMBER_SMOOTHNESS, -RED_SMOOTHNESS, LEARNING_RATE)
    return Metasmoothness(value, step, finding)


def metasmoothness(at: np.ndarray, beyond: np.ndarray, further: np.ndarray) -> float:
    """S of the parameters at η, η + hv and η + 2hv: 1 where none moves, nan if one isn't finite.

    >>> metasmoothness(np.zeros(2), np.array([1.0, 1.0]), np.array([3.0, 1.0]))
    0.75
    """
    if not np.isfinite([at, beyond, further]).all():
        return float("nan")
    moved = np.abs(further - at)
    agreement = np.sign(beyond - at) * np.sign(further - beyond)
    if not moved.any():
        return -1.0 if agreement.any() else 1.0
    return float(agreement @ moved / moved.sum())
