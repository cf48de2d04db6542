"""Signal to noise over seeds: whether fresh starts and data agree about the hypergradient.

Of K hypergradients g_k of a tunable or of one of its windows, with mean ḡ and variances s² over
the seeds:

    norm:        |ḡ| / √(Σ_i s_i² / K)
    coordinate:  median over i of |ḡ_i| / (s_i / √K)

Where there is nothing but noise both are about 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from metatune.check.levels import NOISE, Finding, graded
from metatune.check.subject import Sample, Subject, by_tunable
from metatune.hypergrad.population import signal

AMBER_SIGNAL, RED_SIGNAL = 3.0, 1.5
"""Least norm-based ratio of a tunable."""


class Strength(NamedTuple):
    """Signal over noise.

    Attributes:
        norm: of the norms.
        coordinate: median over the coordinates.
    """

    norm: float
    coordinate: float


class Tunable(NamedTuple):
    """Of one tunable.

    Attributes:
        whole: of all its coordinates.
        windows: of each window.
    """

    whole: Strength
    windows: tuple[Strength, ...]


@dataclass(frozen=True)
class Signal:
    """Signal to noise over seeds.

    Attributes:
        seeds: K.
        tunables: by name.
        finding: what it comes to.
    """

    seeds: int
    tunables: dict[str, Tunable]
    finding: Finding


def check_signal(subject: Subject, found: Sequence[Sample]) -> Signal:
    """Compares the hypergradients of two or more seeds."""
    gradients = by_tunable(subject, np.stack([sample.gradient for sample in found]))
    tunables = {
        key: Tunable(
            strength(values.reshape(len(found), -1)),
            tuple(strength(values[:, window]) for window in range(values.shape[1])),
        )
        for key, values in gradients.items()
    }
    weakest = min(tunable.whole.norm for tunable in tunables.values())
    return Signal(len(found), tunables, graded(-weakest, -AMBER_SIGNAL, -RED_SIGNAL, NOISE))


def strength(gradients: np.ndarray) -> Strength:
    """Of gradients [K, n]; not a number where all are zero."""
    mean = gradients.mean(0)
    error = gradients.std(0, ddof=1) / np.sqrt(len(gradients))
    moving = (mean != 0) | (error != 0)
    if not moving.any():
        return Strength(np.nan, np.nan)
    with np.errstate(divide="ignore"):
        norm = np.linalg.norm(mean) / np.linalg.norm(error)
    coordinate = np.median(signal(gradients))
    return Strength(float(norm), float(coordinate))
