"""Signal to noise over seeds: whether fresh starts and data agree about the hypergradient.

Of K hypergradients g_k of a tunable or of one of its windows, with mean ḡ and variances s² over
the seeds:

    norm:        |ḡ| / √(Σ_i s_i² / K)
    coordinate:  median over i of |ḡ_i| / (s_i / √K)

Where there is nothing but noise both are about 1: E |ḡ|² is that of the mean and of the noise, so
that norm² - 1 is the signal proper. Over fewer steps there is less: a window of n of them sums n
terms, whose mean grows with n and whose spread with √(n (1 + c (n - 1))), c being the correlation
of two of them (that of FDS' bound, Micaelli & Storkey 2021), so that the signal proper grows with
n where they are independent, and less where not. A shortened check, over a fraction f of the steps,
expects what the whole would need, at the fastest growth:

    √(1 + (threshold² - 1) f)

At a quarter of the steps that is 1.7 for green, too near to the 1 of noise alone for a few seeds to
tell the two apart: no shortened check is red. Nor is one of two seeds, whose mean has half the
signal of four's, that thresholds are set for. With more a signal of one coordinate that is just
green falls below the red threshold one time in nine (noncentral t), of many coordinates less often.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from metatune.check.levels import GREEN, NOISE, ROUNDING, Finding, unresolved, worst
from metatune.check.numbers import Numbers
from metatune.hypergrad.population import signal

AMBER_SIGNAL, RED_SIGNAL = 3.0, 1.5
"""Least norm-based ratio of a tunable."""

FEWEST_SEEDS: Final = 3
"""That tell a signal from none."""

ROUNDINGS: Final = 10.0
"""Times the rounding of the objective that a hypergradient must be above, to have a signal."""


class Strength(NamedTuple):
    """Signal over noise.

    Attributes:
        norm: of the norms.
        coordinate: median over the coordinates.
    """

    norm: float
    coordinate: float


class TunableSignal(NamedTuple):
    """Of one tunable.

    Attributes:
        whole: of all its coordinates.
        windows: of each window.
    """

    whole: Strength
    windows: tuple[Strength, ...]


@dataclass(frozen=True)
class SignalCheck:
    """Signal to noise over seeds.

    Attributes:
        seeds: K.
        tunables: by name.
        finding: what it comes to.
    """

    seeds: int
    tunables: dict[str, TunableSignal]
    finding: Finding


def judge_signal(numbers: Numbers) -> SignalCheck:
    """Compares the hypergradients of two or more seeds."""
    found = numbers.samples
    gradients = numbers.by_tunable(np.stack([sample.gradient for sample in found]))
    tunables, findings = {}, []
    for key, values in gradients.items():
        flat = values.reshape(len(found), -1)
        whole = strength(flat)
        windows = tuple(strength(values[:, window]) for window in range(values.shape[1]))
        tunables[key] = TunableSignal(whole, windows)
        hidden = np.abs(flat).max() <= ROUNDINGS * numbers.rounding
        findings.append(unresolved(ROUNDING) if hidden else judged(whole.norm, numbers))
    return SignalCheck(len(found), tunables, worst(findings))


def judged(norm: float, numbers: Numbers) -> Finding:
    """What the signal of a tunable comes to."""
    if norm >= least(AMBER_SIGNAL, numbers.fraction):
        return GREEN
    if norm >= least(RED_SIGNAL, numbers.fraction):
        return Finding("amber", (NOISE,))
    hidden = numbers.shortened or len(numbers.samples) < FEWEST_SEEDS
    return unresolved(NOISE) if hidden else Finding("red", (NOISE,))


def least(threshold: float, fraction: float) -> float:
    """The threshold of a check over a fraction of the recipe's steps."""
    return float(np.sqrt(1 + (threshold**2 - 1) * fraction))


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
