"""Short-horizon bias: how many signs of the hypergradient differ from those of a longer horizon.

Of a whole training the hypergradients of a half and a quarter of its steps, schedules stretched
with it, are compared with its own: where the signs change with the horizon still, a longer training
than this one has others again. Of a stretch (truncated, online) its own are compared with those of
the whole. Each is a mean over the same seeds.

Source: Wu et al., Understanding Short-Horizon Bias in Stochastic Meta-Optimization, 2018.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from metatune.check.levels import GREEN, HORIZON, NOISE, Finding, graded
from metatune.check.subject import Sample, Subject, by_tunable, samples

FRACTIONS: Final = (4, 2)
"""Of the horizon, one over each; the last is judged."""

BEYOND_NOISE: Final = 2.0
"""Standard errors over seeds beyond which the sign of a mean counts."""

AMBER_FLIPPED, RED_FLIPPED = 0.1, 0.25
"""Most coordinates with another sign, of those that stand out of the noise at both horizons."""


class Flipped(NamedTuple):
    """Signs of one tunable.

    Attributes:
        share: of the coordinates with another sign.
        clear: how many stand out of the noise over seeds at both horizons.
        clear_share: of these with another sign; None of none.
    """

    share: float
    clear: int
    clear_share: float | None


class Row(NamedTuple):
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
    rows: tuple[Row, ...]
    finding: Finding


def check_horizons(subject: Subject, found: Sequence[Sample]) -> Horizons:
    """Compares.

    Args:
        subject: what is checked.
        found: its hypergradients, one for each seed.
    """
    seeds = len(found)
    if whole := subject.whole:
        window = subject.window or subject.steps
        reference = samples(whole, seeds, f"{whole.steps} steps")
        rows = [_row(subject, f"the last {window} steps", window, found, reference)]
        return Horizons(whole.steps, tuple(rows), judged(rows))
    rows = []
    for fraction in FRACTIONS:
        steps = subject.steps // fraction
        if steps and (shorter := subject.shorter(steps)):
            short = samples(shorter, seeds, f"{steps} steps")
            rows.append(_row(subject, f"1/{fraction} of the steps", steps, short, found))
    return Horizons(subject.steps, tuple(rows), judged(rows))


def judged(rows: Sequence[Row]) -> Finding:
    """What the longest of the shorter horizons comes to, by the clear coordinates alone."""
    if not rows:
        return GREEN
    tunables = rows[-1].tunables.values()
    shares = [its.clear_share for its in tunables if its.clear_share is not None]
    if not shares:
        return Finding("amber", (NOISE,))
    return graded(max(shares), AMBER_FLIPPED, RED_FLIPPED, HORIZON)


def _row(
    subject: Subject,
    name: str,
    steps: int,
    short: Sequence[Sample],
    reference: Sequence[Sample],
) -> Row:
    (one, clear_one), (other, clear_other) = _means(short), _means(reference)
    differ = by_tunable(subject, np.sign(one) != np.sign(other))
    clear = by_tunable(subject, clear_one & clear_other)
    flipped = {}
    for key, signs in differ.items():
        count = int(clear[key].sum())
        share = float(signs[clear[key]].mean()) if count else None
        flipped[key] = Flipped(float(signs.mean()), count, share)
    return Row(name, steps, flipped)


def _means(found: Sequence[Sample]) -> tuple[np.ndarray, np.ndarray]:
    """The mean hypergradient, and where it stands out of the noise, [N] each."""
    gradients = np.stack([sample.gradient for sample in found])
    mean = gradients.mean(0)
    error = gradients.std(0, ddof=1) / np.sqrt(len(gradients))
    return mean, np.abs(mean) > BEYOND_NOISE * error
