"""Short-horizon bias: how many signs of the hypergradient differ from those of a longer horizon.

Of a whole training the hypergradients of a half and a quarter of its steps, schedules stretched
with it, are compared with its own: where the signs change with the horizon still, a longer training
than this one has others again. Of a stretch (truncated, online) its own are compared with those of
the whole. Each is a mean over the same seeds, and a sign counts where it is certain at both: where
the mean is beyond the 97.5 % point of Student's t with K - 1 degrees of freedom, 12.7 standard
errors of two seeds, 3.2 of four.

Signs of less than half of the coordinates are a sample of them. Where none of fewer than eleven
differs the share of all may still be red: 0.75¹¹ is the first below 0.05. That is not resolved.

A shortened check compares a half of its own few steps with all of them. A coordinate changes its
sign once, when the horizon passes the time over which what it acts on decays: that it does so below
the recipe's horizon doesn't say that it does beyond. So signs that keep are good news at any
horizon, and signs that change are none of the recipe's: not resolved.

Source: Wu et al., Understanding Short-Horizon Bias in Stochastic Meta-Optimization, 2018.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from scipy.special import stdtrit

from metatune.check.levels import (
    GREEN,
    HORIZON,
    NOISE,
    SHORTENED,
    Finding,
    graded,
    unresolved,
    worst,
)
from metatune.check.numbers import AtHorizon, Numbers, Sample, means

CERTAIN: Final = 0.975
"""Probability that a mean of the other sign would have stayed below the bound."""

AMBER_FLIPPED, RED_FLIPPED = 0.1, 0.25
"""Most coordinates with another sign, of those that stand out of the noise at both horizons."""


FEWEST_CLEAR: Final = 11
"""Coordinates that stand out of the noise, to speak for more than as many others."""


class Flipped(NamedTuple):
    """Signs of one tunable.

    Attributes:
        share: of the coordinates with another sign.
        clear: how many stand out of the noise over seeds at both horizons.
        clear_share: of these with another sign; None of none.
        size: coordinates, clear or not.
    """

    share: float
    clear: int
    clear_share: float | None
    size: int


class HorizonRow(NamedTuple):
    """A shorter horizon.

    Attributes:
        name: which.
        steps: that are differentiated.
        tunables: by name.
    """

    name: str
    steps: int
    tunables: dict[str, Flipped]


@dataclass(frozen=True)
class Horizons:
    """Signs over shorter horizons.

    Attributes:
        steps: the horizon that they are compared with.
        rows: the shorter ones; none where windows would have no step.
        finding: what the last one comes to.
    """

    steps: int
    rows: tuple[HorizonRow, ...]
    finding: Finding


def judge_horizons(numbers: Numbers) -> Horizons:
    """Compares."""
    whole = numbers.whole
    reference = whole.samples if whole else numbers.samples
    rows = tuple(_row(numbers, stretch, reference) for stretch in numbers.stretches)
    steps = whole.steps if whole else numbers.horizon.steps
    return Horizons(steps, rows, judged(rows, shortened=numbers.shortened))


def judged(rows: Sequence[HorizonRow], *, shortened: bool = False) -> Finding:
    """What the longest of the shorter horizons comes to, by the clear coordinates alone."""
    if not rows:
        return GREEN
    tunables = rows[-1].tunables.values()
    finding = worst(_graded(its) for its in tunables if its.clear)
    if finding.level != "green":
        return unresolved(SHORTENED) if shortened else finding
    clear, size = (sum(getattr(its, name) for its in tunables) for name in ("clear", "size"))
    return unresolved(NOISE) if clear < min(FEWEST_CLEAR, size / 2) else finding


def _graded(its: Flipped) -> Finding:
    share = its.clear_share or 0.0
    finding = graded(share, AMBER_FLIPPED, RED_FLIPPED, HORIZON)
    # A share of few coordinates is known to its binomial standard error.
    certain = share - np.sqrt(share * (1 - share) / its.clear)
    return Finding("amber", (HORIZON,)) if certain <= RED_FLIPPED < share else finding


def _row(numbers: Numbers, stretch: AtHorizon, reference: Sequence[Sample]) -> HorizonRow:
    (one, clear_one), (other, clear_other) = _signs(stretch.samples), _signs(reference)
    differ = numbers.by_tunable(one != other)
    clear = numbers.by_tunable(clear_one & clear_other)
    flipped = {}
    for key, signs in differ.items():
        count = int(clear[key].sum())
        share = float(signs[clear[key]].mean()) if count else None
        flipped[key] = Flipped(float(signs.mean()), count, share, signs.size)
    return HorizonRow(stretch.name, stretch.steps, flipped)


def _signs(found: Sequence[Sample]) -> tuple[np.ndarray, np.ndarray]:
    """The sign of the mean hypergradient, and where it is certain, [N] each."""
    mean, error = means(found)
    return np.sign(mean), np.abs(mean) > stdtrit(len(found) - 1, CERTAIN) * error
