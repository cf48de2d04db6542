"""A local quadratic model of the objective along a change δ of η, with what it leaves open.

    F(η + δ) - F(η) ≈ g·δ + ½ δᵀHδ

The slope g·δ is that of the run's hypergradients at the chosen η, one for each of S trainings of
seeds that the search never had. The curvature is the second difference of whole trainings of a few
of these seeds,

    δᵀHδ ≈ F(η + δ) + F(η - δ) - 2 F(η),

and the same two trainings tell what is of neither: (F(η + δ) - F(η - δ)) / 2 - g·δ, of third order
and above, or the slope of a wrinkle that is none over δ. The interval is Student's, of both means
together (by the degrees of freedom of Welch and Satterthwaite), and wider by the mean of that rest,
whose sign isn't taken for granted. Where the rest is as large as half of what it is left of, the
model says nothing over so long a change, and trainings alone do, in pairs.

Source: Satterthwaite, An approximate distribution of estimates of variance components, Biometrics
Bulletin 1946; the model is that of Conn, Gould & Toint, Trust-Region Methods, 2000, chapter 6.
"""

import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from scipy.special import stdtrit

LEVEL: Final = 0.1
"""Probability with which an interval misses."""

MOST_LEFT: Final = 0.5
"""Of slope or curvature, what may be of neither: as much of a derivative as `metatune check` calls
linear over a step."""


class Bend(NamedTuple):
    """What two trainings of a seed, at η + δ and η - δ, tell of it beyond its slope.

    Attributes:
        second: δᵀHδ.
        rest: what the model leaves of F(η + δ) - F(η).
    """

    second: float
    rest: float


class PredictedChange(NamedTuple):
    """A change of the objective.

    Attributes:
        change: predicted, g·δ + ½ δᵀHδ; positive where the objective, a loss, gets worse; infinite
            where trainings diverge.
        low: lower end of the interval.
        high: upper end.
        slope: g·δ.
        second: δᵀHδ; None where it wasn't looked at.
        rest: what neither tells, of the trainings that were looked at.
        seeds: hypergradients.
        bends: seeds with trainings on either side.
        pairs: of trainings, by which it is told in place of the model; zero where the model holds.
    """

    change: float
    low: float
    high: float
    slope: float
    second: float | None
    rest: float
    seeds: int
    bends: int
    pairs: int = 0

    @property
    def half(self) -> float:
        """Half the width of the interval."""
        return (self.high - self.low) / 2

    @property
    def told(self) -> bool:
        """Whether the interval leaves out that nothing changes."""
        return self.low > 0 or self.high < 0

    def plain(self) -> dict[str, Any]:
        """As plain values."""
        return self._asdict() | {"half": self.half, "told": self.told}


def bend(base: float, above: float, below: float, slope: float) -> Bend | None:
    """What the trainings of a seed tell.

    Args:
        base: F(η).
        above: F(η + δ).
        below: F(η - δ); where it isn't finite, all that isn't slope is taken for curvature, and as
            much is left open.
        slope: g·δ of the seed.

    Returns:
        None where the training at η + δ diverged.
    """
    if not math.isfinite(above):
        return None
    if not math.isfinite(below):
        beyond = above - base - slope
        return Bend(2 * beyond, beyond)
    return Bend(above + below - 2 * base, (above - below) / 2 - slope)


def holds(slopes: Sequence[float], bends: Sequence[Bend | None]) -> bool:
    """Whether slope and curvature are most of what a change does.

    Args:
        slopes: g·δ of some seeds.
        bends: of the first of them.
    """
    known = [each for each in bends if each is not None]
    if len(known) < len(bends):
        return False
    of_neither = _size([each.rest for each in known])
    found = max(_size(slopes[: len(known)]), _size([each.second / 2 for each in known]))
    return of_neither <= MOST_LEFT * found


def _size(values: Sequence[float]) -> float:
    return math.sqrt(sum(value**2 for value in values) / len(values)) if values else 0.0


def by_pairs(
    model: PredictedChange, mean: float, low: float, high: float, pairs: int
) -> PredictedChange:
    """A prediction by trainings alone, with what the model would have said of its parts.

    Args:
        model: that doesn't hold.
        mean: of the pairs' differences; infinite where trainings diverge.
        low: lower end of its interval.
        high: upper end.
        pairs: how many.
    """
    mean = math.inf if math.isnan(mean) else mean
    return model._replace(change=mean, low=low, high=high, pairs=pairs)


def predicted(
    slopes: Sequence[float], bends: Sequence[Bend | None], level: float = LEVEL
) -> PredictedChange:
    """The change of the objective.

    Args:
        slopes: g·δ of two seeds or more.
        bends: of some of them; None where a training diverged; empty where none was looked at, so
            that a straight line is all there is.
        level: probability with which the interval misses.
    """
    first = np.asarray(slopes, np.float64)
    known = [each for each in bends if each is not None]
    if len(known) < len(bends):
        slope = float(first.mean())
        return PredictedChange(
            math.inf, -math.inf, math.inf, slope, None, math.inf, len(first), len(bends)
        )
    halves = np.asarray([each.second / 2 for each in known], np.float64)
    rest = float(np.mean([each.rest for each in known])) if known else 0.0
    parts = [each for each in (first, halves) if len(each)]
    change = float(sum(each.mean() for each in parts))
    squares = [each.var(ddof=1) / len(each) if len(each) > 1 else 0.0 for each in parts]
    square = float(sum(squares))
    half = abs(rest)
    if square > 0:
        degrees = square**2 / sum(
            own**2 / (len(each) - 1)
            for own, each in zip(squares, parts, strict=True)
            if len(each) > 1
        )
        half += float(stdtrit(degrees, 1 - level / 2)) * math.sqrt(square)
    return PredictedChange(
        change,
        change - half,
        change + half,
        float(first.mean()),
        float(2 * halves.mean()) if known else None,
        rest,
        len(first),
        len(known),
    )


def held(prediction: PredictedChange, measured: float, low: float, high: float) -> bool:
    """Whether a measurement agrees with a prediction, both with their intervals.

    Args:
        prediction: the prediction.
        measured: the mean.
        low: lower end of its interval.
        high: upper end.
    """
    if not math.isfinite(prediction.change) or not math.isfinite(measured):
        return math.isinf(prediction.change) and math.isinf(measured) and measured > 0
    apart = abs(measured - prediction.change)
    return apart <= math.hypot(prediction.half, (high - low) / 2)
