"""The gain at a rung that wasn't trained yet, from those below: a line over the log of compute."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from scipy.special import chdtrc, stdtrit

CONFIDENCE: Final = 0.95
REFUSED: Final = 0.05
"""Probability of so bad a fit or a worse one, below which rungs refuse a line."""

FEWEST: Final = 2
"""Rungs that make a line."""


class Point(NamedTuple):
    """A gain that was measured.

    Attributes:
        compute: of the training, in any unit.
        gain: mean over seeds.
        error: its standard error.
        seeds: how many.
    """

    compute: float
    gain: float
    error: float
    seeds: int


class Prediction(NamedTuple):
    """Where a gain will be measured.

    Attributes:
        gain: on the line.
        low: the lower end of the 95 % interval.
        high: the upper one.
        line: whether the rungs below lie on a line, as far as their errors tell.
    """

    gain: float
    low: float
    high: float
    line: bool


def predict(points: Sequence[Point], compute: float) -> Prediction | None:
    """The gain at another compute, by a line `a + b log compute` of least weighted squares.

    Weights are inverse squared errors. The interval is of a gain that is measured as the others
    are: its variance is that of the line there and the largest of theirs. Where the rungs refuse a
    line, as chi-squared tells, what they lie off it widens the interval, and the degrees of freedom
    are those of the line alone.

    Args:
        points: of two rungs or more, of different compute.
        compute: of the training to come.

    Returns:
        The prediction; None of fewer rungs, or of errors that aren't known.
    """
    known = [point for point in points if np.isfinite([point.gain, point.error]).all()]
    if len({point.compute for point in known}) < FEWEST or not all(p.error > 0 for p in known):
        return None
    gains, errors = (np.asarray([p[i] for p in known], np.float64) for i in (1, 2))
    rows = np.stack([np.ones(len(known)), np.log([point.compute for point in known])], axis=1)
    weighted = rows / errors[:, None]
    covariance = np.linalg.inv(weighted.T @ weighted)
    line = covariance @ (weighted.T @ (gains / errors))
    square = float(np.sum(((gains - rows @ line) / errors) ** 2))
    spare = len(known) - rows.shape[1]
    fits = spare == 0 or float(chdtrc(spare, square)) >= REFUSED
    freedom, scale = sum(point.seeds - 1 for point in known), 1.0
    if not fits:
        freedom, scale = spare, square / spare
    at = np.asarray([1.0, np.log(compute)])
    variance = scale * (at @ covariance @ at + np.max(errors) ** 2)
    gain = float(at @ line)
    half = float(stdtrit(freedom, (1 + CONFIDENCE) / 2) * np.sqrt(variance))
    return Prediction(gain, gain - half, gain + half, fits)
