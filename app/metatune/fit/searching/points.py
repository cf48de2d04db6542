"""The points of a search: the meta-parameters after k updates, and what is recorded at each.

Point 0 is the recipe's own, point k what k outer steps have led to. Every line on the screen, in
the metrics and in TensorBoard, the best point of an artefact too, counts in this k. Each point but
the last takes an outer step, to the next.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metatune.fit.searching.checkpoints import Search
from metatune.inner import InnerTraining
from metatune.tunables import LearningRates

Line = Mapping[str, Any]
"""A line of the metrics."""


def taken(lines: Sequence[Line]) -> list[Line]:
    """The lines of those points that an outer step was taken from, of all lines of the metrics."""
    return [line for line in lines if "objective" in line]


def judged(search: Search, held_out: float, averaged: bool = False) -> Search:
    """Keeps the current meta-parameters, or their average, as the best if they are."""
    if held_out < search.best_held_out:
        return search._replace(
            best_eta=search.average if averaged else search.eta,
            best_step=search.step,
            best_held_out=held_out,
            best_averaged=averaged,
        )
    return search


def line_of(
    search: Search, held_out: float, of_average: float | None, *, seconds: float, **further: Any
) -> dict[str, Any]:
    """What is recorded at a point.

    Args:
        search: where it stands, at the point and judged.
        held_out: the judges' loss; not finite if they weren't asked, or if a training diverged.
        of_average: that of the moving average; None if there is none.
        seconds: that the point has taken.
        further: of the outer step from it.
    """
    line = {
        "step": search.step,
        "phase": search.phase,
        **further,
        "held_out": held_out if math.isfinite(held_out) else None,
        "best_held_out": search.best_held_out,
        "seconds": seconds,
    }
    if of_average is not None:
        line["held_out_average"] = of_average if math.isfinite(of_average) else None
    return line


def rate_factors(training: InnerTraining, eta: Mapping[str, Any]) -> tuple[float, float] | None:
    """The least and the largest multiplier of a learning rate; None where rates aren't tuned."""
    rates = {tunable.key: tunable for tunable in training.tunables}.get("learning_rates")
    if not isinstance(rates, LearningRates):
        return None
    multipliers = rates.multipliers(np.asarray(eta[rates.key]))
    return float(multipliers.min()), float(multipliers.max())
