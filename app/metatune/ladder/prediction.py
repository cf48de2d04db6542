"""The gain at a rung that wasn't trained yet, from those below.

By a line over the logarithm of compute, unless the rungs refuse one: larger models and longer
trainings of the same compute may keep different parts of a gain. Then by a plane over the
logarithms of parameters and tokens, whose slopes are expected to be small: with as few rungs as a
ladder has, those that the rungs say nothing of have to come from somewhere.

Source: linear regression with a normal prior of the slopes (Lindley & Smith, Bayes Estimates for
the Linear Model, 1972); parameters and tokens as the two sizes of a training: Hoffmann et al.,
2022, section 3.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from scipy.special import chdtrc, stdtrit

CONFIDENCE: Final = 0.95
REFUSED: Final = 0.05
"""Probability of so bad a fit or a worse one, below which rungs refuse a line."""

FEWEST: Final = 2
"""Rungs that make a line."""

SLOPE: Final = 0.2
"""Of the gain at the smallest rung, that a doubling of parameters or of tokens is expected to add
or to take away, as a standard deviation."""

OWN: Final = 0.05
"""Of the gain at the smallest rung, that a rung lies off the plane by itself, likewise."""


class Point(NamedTuple):
    """A gain that was measured.

    Attributes:
        compute: of the training, 6 · parameters · tokens.
        gain: mean over seeds.
        error: its standard error.
        seeds: how many.
        parameters: of the model; None where it isn't known.
    """

    compute: float
    gain: float
    error: float
    seeds: int
    parameters: float | None = None


class Prediction(NamedTuple):
    """Where a gain will be measured.

    Attributes:
        gain: on the line, or on the plane.
        low: the lower end of the 95 % interval.
        high: the upper one.
        line: whether the rungs below lie on a line, as far as their errors tell.
    """

    gain: float
    low: float
    high: float
    line: bool


def predict(
    points: Sequence[Point], compute: float, parameters: float | None = None
) -> Prediction | None:
    """The gain at another training, by a line `a + b log compute` of least weighted squares.

    Weights are inverse squared errors. The interval is of a gain that is measured as the others
    are: its variance is that of the line there and the largest of theirs. Where the rungs refuse a
    line, as chi-squared tells, it is by `a + b log2 parameters + c log2 tokens`, with b and c of a
    prior standard deviation of `SLOPE` times the smallest rung's gain, and a deviation of its own
    for each rung; or, where parameters aren't known, by the line, as much wider as the rungs lie
    off it, with the degrees of freedom of the line alone.

    Args:
        points: of two rungs or more, of different compute.
        compute: of the training to come, 6 · parameters · tokens.
        parameters: of its model; None where it isn't known.

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
        sizes = [point.parameters for point in known]
        if parameters is not None and None not in sizes:
            return _on_plane(known, compute, parameters)
        freedom, scale = spare, square / spare
    at = np.asarray([1.0, np.log(compute)])
    variance = scale * (at @ covariance @ at + np.max(errors) ** 2)
    return _interval(float(at @ line), variance, freedom, line=fits)


def _on_plane(known: Sequence[Point], compute: float, parameters: float) -> Prediction:
    """By the posterior of a plane over parameters and tokens."""
    first = min(known, key=lambda point: point.compute)
    assert first.parameters is not None  # asked for by `predict`

    def row(compute: float, parameters: float | None) -> list[float]:
        # Tokens are compute over parameters, up to a factor.
        size = np.log2((parameters or np.nan) / (first.parameters or np.nan))
        return [1.0, size, np.log2(compute / first.compute) - size]

    gains, errors = (np.asarray([p[i] for p in known], np.float64) for i in (1, 2))
    rows = np.asarray([row(point.compute, point.parameters) for point in known])
    scale = abs(first.gain) + first.error
    noise = errors**2 + (OWN * scale) ** 2
    prior = np.diag([0.0, 1.0, 1.0]) / (SLOPE * scale) ** 2
    weighted = rows / noise[:, None]
    covariance = np.linalg.inv(rows.T @ weighted + prior)
    plane, at = covariance @ (weighted.T @ gains), np.asarray(row(compute, parameters))
    variance = at @ covariance @ at + np.max(noise)
    freedom = sum(point.seeds - 1 for point in known)
    return _interval(float(at @ plane), variance, freedom, line=False)


def _interval(gain: float, variance: Any, freedom: int, *, line: bool) -> Prediction:
    half = float(stdtrit(freedom, (1 + CONFIDENCE) / 2) * np.sqrt(variance))
    return Prediction(gain, gain - half, gain + half, line)
