"""A schedule in the words of trainers: a warmup, then constant, linear or cosine."""

from typing import Literal, NamedTuple

import numpy as np

from metatune.artefact.curves import values_at
from metatune.artefact.exporters.base import Production
from metatune.artefact.horizon import base_rates
from metatune.artefact.sections.rates import LearningRates

EXACT = 1e-6
"""Relative; a schedule that is nearer is of its kind."""


class Described(NamedTuple):
    """A schedule as trainers make them.

    Attributes:
        kind: how it goes on after the warmup.
        peak: its largest rate, absolute.
        warmup: updates before the peak.
        last: the rate at the end, as a fraction of the peak.
        deviation: of what these words mean from the schedule, relative to the peak, at most.
    """

    kind: Literal["constant", "linear", "cosine"]
    peak: float
    warmup: int
    last: float
    deviation: float

    def words(self, steps: int) -> str:
        """In a sentence; `steps` are the updates of the training."""
        share = f"{self.warmup:,} updates ({100 * self.warmup / steps:.3g} %)"
        near = f", off by up to {100 * self.deviation:.2g} % of the peak"
        end = "" if self.kind == "constant" else f", to {100 * self.last:.3g} % of the peak"
        return (
            f"{self.kind} after a linear warmup of {share}{end}"
            f"{near if self.deviation > EXACT else ''}"
        )


def described(curve: np.ndarray) -> Described:
    """The nearest schedule of such words.

    Args:
        curve: rates at every update, float64 [steps].
    """
    steps, peak = len(curve), float(curve.max())
    if peak == 0:
        return Described("constant", 0.0, 0, 0.0, 0.0)
    warmup = int(np.flatnonzero(curve >= peak * (1 - EXACT))[0])
    rising = (np.arange(warmup) + 1) / (warmup + 1)
    along = np.arange(steps - warmup) / (steps - warmup)
    shapes = {"constant": np.ones_like(along), "linear": 1 - along}
    shapes["cosine"] = 0.5 * (1 + np.cos(np.pi * along))
    found = []
    for kind, shape in shapes.items():
        # curve / peak = last + (1 - last) shape, least squares in `last`.
        rest, own = 1 - shape, curve[warmup:] / peak
        last = float(rest @ (own - shape) / max(rest @ rest, 1e-300)) if kind != "constant" else 1.0
        last = min(1.0, max(0.0, last))
        fitted = np.concatenate([rising, last + (1 - last) * shape])
        off = float(np.abs(fitted - curve / peak).max())
        found.append(Described(kind, peak, warmup, last, off))  # pyright: ignore[reportArgumentType]
    return min(found, key=lambda one: one.deviation)


def base_schedule(production: Production) -> Described:
    """The base schedule of an artefact over the updates of the training to come."""
    rates = production.artefact.learning_rates
    return described(over(base_rates(production.artefact), rates, production.steps))


def over(curve: np.ndarray, rates: LearningRates, steps: int) -> np.ndarray:
    """A curve at the knots of the learning rates, at every update, float64 [steps]."""
    knots, interpolation = rates.knots, rates.interpolation
    return values_at(knots, np.asarray(curve)[:, None], interpolation, range(steps), steps)[:, 0]
