"""Predictions of a gain, against closed forms, and over many ladders of a known truth."""

import numpy as np
import pytest
from scipy.stats import t as student

from metatune.ladder.prediction import Point, predict


def test_of_two_rungs_it_is_their_line_with_the_errors_carried_on():
    """At twice their distance: 2 b - a, of variance 4 s² + s², and that of the measurement."""
    made = predict([Point(1, 0.4, 0.01, 5), Point(10, 0.3, 0.01, 5)], 100)
    assert made is not None
    assert made.gain == pytest.approx(0.2)
    half = student.ppf(0.975, 8) * np.sqrt(5 * 0.01**2 + 0.01**2)
    assert (made.low, made.high) == pytest.approx((0.2 - half, 0.2 + half))
    assert made.line


def test_of_three_it_is_the_least_weighted_squares_of_numpy():
    computes, gains, errors = np.array([1, 4, 32]), np.array([0.4, 0.38, 0.33]), [0.01, 0.02, 0.02]
    points = [Point(*each, 5) for each in zip(computes, gains, errors, strict=True)]
    made = predict(points, 256)
    assert made is not None
    line, covariance = np.polyfit(
        np.log(computes), gains, 1, w=1 / np.array(errors), cov="unscaled"
    )
    at = np.array([np.log(256), 1])
    assert made.gain == pytest.approx(float(at @ line))
    variance = at @ covariance @ at + 0.02**2
    assert made.high - made.gain == pytest.approx(student.ppf(0.975, 12) * np.sqrt(variance))
    assert made.line


def test_rungs_off_a_line_widen_the_interval_and_say_so():
    straight = [Point(1, 0.4, 0.01, 5), Point(4, 0.3, 0.01, 5), Point(16, 0.2, 0.01, 5)]
    bent = [*straight[:2], Point(16, 0.4, 0.01, 5)]
    one, other = predict(straight, 64), predict(bent, 64)
    assert one is not None and other is not None
    assert one.line and not other.line
    assert other.high - other.low > 10 * (one.high - one.low)


def test_without_a_line_nothing_is_predicted():
    assert predict([Point(1, 0.4, 0.01, 5)], 10) is None
    assert predict([Point(1, 0.4, 0.01, 5), Point(1, 0.4, 0.01, 5)], 10) is None
    assert predict([Point(1, 0.4, 0.01, 5), Point(2, np.inf, np.nan, 5)], 10) is None
    assert predict([Point(1, 0.4, 0.0, 5), Point(2, 0.4, 0.01, 5)], 10) is None


def test_rungs_off_a_line_are_on_a_plane_where_parameters_are_known():
    """Against the posterior as weighted least squares with two rows more, one for each slope."""
    sizes = np.array([[1, 1], [2, 1], [1, 2], [4, 1]])  # parameters and tokens, of the proxy's
    gains, error = np.array([0.42, 0.37, 0.51, 0.33]), 0.01
    points = [Point(6 * n * d, g, error, 5, n) for (n, d), g in zip(sizes, gains, strict=True)]
    made = predict(points, 6 * 4 * 4, 4)
    assert made is not None and not made.line
    noise, prior = np.hypot(error, 0.05 * 0.43), 0.2 * 0.43
    rows = np.column_stack([np.ones(4), np.log2(sizes)]) / noise
    rows = np.concatenate([rows, np.array([[0, 1, 0], [0, 0, 1]]) / prior])
    plane = np.linalg.lstsq(rows, np.concatenate([gains / noise, [0, 0]]), rcond=None)[0]
    at = np.array([1, 2, 2])
    assert made.gain == pytest.approx(at @ plane)
    variance = at @ np.linalg.inv(rows.T @ rows) @ at + noise**2
    assert made.high - made.gain == pytest.approx(student.ppf(0.975, 16) * np.sqrt(variance))


def test_of_a_plane_the_interval_holds_as_often_as_it_says():
    """Slopes as they are expected to be, over parameters and tokens, and a rung's own deviation."""
    rng, held, asked, trials = np.random.default_rng(0), 0, 0, 400
    sizes = np.array([[1, 1], [2, 1], [1, 2], [4, 1], [1, 4], [4, 4.0]])
    for _ in range(trials):
        slopes, own = 0.08 * rng.normal(size=2), 0.02 * rng.normal(size=(6, 1))
        seeds = 0.4 + (np.log2(sizes) @ slopes)[:, None] + own + 0.02 * rng.normal(size=(6, 5))
        means, errors = seeds.mean(axis=1), seeds.std(axis=1, ddof=1) / np.sqrt(5)
        points = [
            Point(6 * n * d, m, e, 5, n) for (n, d), m, e in zip(sizes, means, errors, strict=True)
        ]
        made = predict(points[:5], 6 * 16.0, 4.0)
        assert made is not None
        if not made.line:
            asked += 1
            held += made.low <= means[5] <= made.high
    assert asked > 200
    assert 0.9 < held / asked <= 1.0


@pytest.mark.parametrize("slope", [0.0, -0.1])
def test_the_interval_holds_as_often_as_it_says(slope):
    """Gains that hold, and that vanish with size: of noise over five seeds, 95 of 100."""
    rng, held = np.random.default_rng(0), 0
    computes, noise, trials = np.array([1.0, 4.0, 16.0, 64.0]), 0.02, 400
    for _ in range(trials):
        seeds = 0.4 + slope * np.log(computes)[:, None] + noise * rng.normal(size=(4, 5))
        means, errors = seeds.mean(axis=1), seeds.std(axis=1, ddof=1) / np.sqrt(5)
        points = [Point(c, m, e, 5) for c, m, e in zip(computes, means, errors, strict=True)]
        made = predict(points[:3], 64.0)
        assert made is not None
        held += made.low <= means[3] <= made.high
    assert 0.9 < held / trials <= 1.0


def test_a_gain_that_vanishes_is_foretold_to():
    """The line reaches zero at the next rung, and the interval holds it."""
    points = [Point(1, 0.3, 0.01, 5), Point(8, 0.2, 0.01, 5), Point(64, 0.1, 0.01, 5)]
    made = predict(points, 512)
    assert made is not None
    assert made.low < 0 < made.high
    holds = predict([point._replace(gain=0.3) for point in points], 512)
    assert holds is not None
    assert holds.low > 0.2
