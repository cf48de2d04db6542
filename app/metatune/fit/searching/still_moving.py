"""Whether a search had come to rest when it ended: what its last points tell."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from metatune.fit.searching.phases import End
from metatune.fit.searching.points import Line, taken
from metatune.inner import InnerTraining
from metatune.recipe import schema
from metatune.tunables import TunableLearningRates

LAST: Final = 5
"""Points at the end that a trend is taken over."""


def moved(
    training: InnerTraining, before: Mapping[str, Any], after: Mapping[str, Any]
) -> dict[str, float]:
    """How far an outer step moves learning rates and shares.

    Returns:
        `learning_rates`, the median change of a multiplier's logarithm; `mixture`, the share of the
        sequences that another domain gets, in the mean over inner steps. What isn't tuned is left
        out.
    """
    found, keys = {}, {tunable.key: tunable for tunable in training.tunables}
    if isinstance(rates := keys.get("learning_rates"), TunableLearningRates):
        one, other = (
            np.log(rates.multipliers(np.asarray(eta[rates.key]))) for eta in (before, after)
        )
        found["learning_rates"] = float(np.median(np.abs(other - one)))
    if "mixture" in keys:
        one, other = (
            np.asarray(training.hyper_over(dict(eta)).mixture, np.float64)
            for eta in (before, after)
        )
        found["mixture"] = float(np.abs(other - one).sum(axis=-1).mean() / 2)
    return found


def course(outer: schema.OuterSpec, lines: Sequence[Line], why: End) -> dict[str, Any]:
    """What an artefact's result says of the course of a search, as plain JSON values.

    Args:
        outer: of the recipe.
        lines: all of the metrics.
        why: the search is over.

    Returns:
        `ended`: by `steps`, `converged` or `patience`; `held_out`, its `trend`, null for none;
        `moved` by tunable, in the median over the last `LAST` outer steps; `more`, the override
        that makes the search longer, null where it has phases; the `jumps` of hypergradients; and
        `chosen`, which ways were chosen at which points, if any were.
    """
    steps = taken(lines)
    # A run that an older version began may not say how far its first steps moved.
    last = [line["moved"] for line in steps[-LAST:] if "moved" in line]
    jumps = [
        {"step": line["step"], "tunable": key, **found}
        for line in steps
        for key, found in line.get("jumps", {}).items()
    ]
    chosen = [
        {"step": line["step"], **line["chosen"]}
        for line in steps
        if "measured" in line.get("chosen", {})
    ]
    return {
        "ended": why.name.lower(),
        "held_out": trend(lines),
        "moved": {
            key: float(np.median([each[key] for each in last])) for key in (last[0] if last else {})
        },
        "more": None if outer.phases else f"outer.steps={2 * len(steps)}",
        "jumps": jumps,
        **({"chosen": chosen} if chosen else {}),
    }


def trend(lines: Sequence[Line]) -> dict[str, Any] | None:
    """The slope of the held-out loss over the last `LAST` points that were judged.

    By least squares; its standard error is that of the residuals.

    Returns:
        `points`, the first and the last of them; `per_step`; and `standard_error`, null of two
        points. None of fewer than two.
    """
    known = [(line["step"], line["held_out"]) for line in lines if line.get("held_out") is not None]
    if len(known) < 2:
        return None
    steps, losses = np.array(known[-LAST:], np.float64).T
    apart = steps - steps.mean()
    slope = float(apart @ losses / (apart @ apart))
    error = None
    if len(steps) > 2:
        residuals = losses - losses.mean() - slope * apart
        error = math.sqrt(float(residuals @ residuals) / (len(steps) - 2) / float(apart @ apart))
    return {
        "points": [int(steps[0]), int(steps[-1])],
        "per_step": slope,
        "standard_error": error,
    }
