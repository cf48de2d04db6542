"""The local model on objectives whose change is known: quadratics, cubics, noise of seeds."""

import math

import numpy as np
import pytest
from scipy import stats

from metatune.verdict.what_if.model import LEVEL, Bend, bend, by_pairs, held, holds, predicted


class Problem:
    """F_s(η) = b_s·η + ½ ηᵀH_s η + c Σ η³ of seeds s, whose means are known."""

    def __init__(self, seed, size=8, noise=0.3, cubic=0.0):
        drawing = np.random.default_rng(seed)
        self.slope = drawing.normal(size=size)
        half = drawing.normal(size=(size, size))
        self.hessian, self.cubic = half + half.T, cubic
        self.noise, self.seed, self.size = noise, seed, size

    def of_seed(self, number):
        drawing = np.random.default_rng((self.seed, number))
        slope = self.slope + self.noise * drawing.normal(size=self.size)
        half = self.noise * drawing.normal(size=(self.size, self.size))
        hessian = self.hessian + half + half.T

        def objective(eta):
            return slope @ eta + eta @ hessian @ eta / 2 + self.cubic * np.sum(eta**3)

        return slope, objective

    def change(self, delta):
        bent = delta @ self.hessian @ delta / 2
        return self.slope @ delta + bent + self.cubic * np.sum(delta**3)

    def predicted(self, delta, seeds=6, bent=3):
        slopes, bends = [], []
        for number in range(seeds):
            slope, objective = self.of_seed(number)
            slopes.append(float(slope @ delta))
            if number < bent:
                base, above, below = (objective(sign * delta) for sign in (0, 1, -1))
                bends.append(bend(base, above, below, slopes[-1]))
        return predicted(slopes, bends)


def test_a_quadratic_without_noise_is_told_exactly():
    problem = Problem(0, noise=0.0)
    delta = np.random.default_rng(1).normal(size=8)
    found = problem.predicted(delta)
    assert found.change == pytest.approx(problem.change(delta))
    assert found.slope == pytest.approx(problem.slope @ delta)
    assert found.second == pytest.approx(delta @ problem.hessian @ delta)
    assert found.half == pytest.approx(0, abs=1e-12)


def test_what_is_of_third_order_is_left_open_and_widens_the_interval():
    problem = Problem(0, noise=0.0, cubic=0.2)
    delta = np.random.default_rng(1).normal(size=8)
    found = problem.predicted(delta)
    assert abs(found.rest) == pytest.approx(abs(0.2 * np.sum(delta**3)))
    assert found.half == pytest.approx(abs(found.rest))
    assert found.low <= problem.change(delta) + 1e-12
    assert found.high >= problem.change(delta) - 1e-12


def test_the_interval_is_student_s_of_the_slopes_where_there_is_nothing_else():
    slopes = [0.1, 0.4, 0.2, 0.35, 0.0]
    found = predicted(slopes, [])
    told = stats.ttest_1samp(slopes, 0).confidence_interval(1 - LEVEL)
    assert (found.low, found.high) == pytest.approx((told.low, told.high))
    assert found.second is None
    assert predicted([0.5, 0.5], []).half == 0


def test_both_means_together_are_welch_s():
    """Of a slope and half a curvature with the same seeds, as of two samples."""
    slopes, seconds = [0.1, 0.4, 0.2, 0.35], [1.0, 0.6, 1.2]
    found = predicted(slopes, [Bend(second, 0.0) for second in seconds])
    other = -np.asarray(seconds) / 2
    told = stats.ttest_ind(slopes, other, equal_var=False).confidence_interval(1 - LEVEL)
    assert (found.low, found.high) == pytest.approx((told.low, told.high))


@pytest.mark.parametrize("cubic", [0.0, 0.1])
@pytest.mark.parametrize("seeds", [(6, 3), (4, 2)])
def test_the_interval_holds_the_truth_as_often_as_it_says(cubic, seeds):
    """Of 600 changes of as many problems; that of more noise than signal, too."""
    inside, told = 0, 0
    for number in range(600):
        problem = Problem(number, noise=(0.1, 0.3, 1.0)[number % 3], cubic=cubic)
        delta = 0.5 * np.random.default_rng((7, number)).normal(size=8)
        found = problem.predicted(delta, *seeds)
        inside += found.low <= problem.change(delta) <= found.high
        told += found.told
    assert inside >= 600 * (1 - LEVEL) - 3 * math.sqrt(600 * LEVEL * (1 - LEVEL))
    assert told > 100  # and says something


def test_a_training_that_diverges_is_no_number():
    assert bend(2.0, math.inf, 2.1, 0.1) is None
    found = predicted([0.1, 0.2], [None, Bend(0.1, 0.0)])
    assert found.change == math.inf
    assert not found.told
    # Where only the other way diverges, what is beyond the slope is as uncertain as it is large.
    one_sided = bend(2.0, 2.5, math.inf, 0.1)
    assert one_sided == pytest.approx((0.8, 0.4))
    assert held(found, math.inf, -math.inf, math.inf)
    assert not held(found, 0.1, 0.0, 0.2)


def test_a_model_holds_where_little_is_of_neither_slope_nor_curvature():
    """A cubic over a short change, and over a long one; a wrinkle, whose slope is no slope."""
    problem = Problem(0, noise=0.0, cubic=0.5)
    direction = np.random.default_rng(1).normal(size=8)

    def of(by):
        slope, objective = problem.of_seed(0)
        at = (objective(sign * by * direction) for sign in (0, 1, -1))
        base, above, below = at
        return [float(by * slope @ direction)], [bend(base, above, below, by * slope @ direction)]

    assert holds(*of(0.1))
    assert not holds(*of(10.0))
    assert holds([0.001], [Bend(1.0, 0.2)])  # at the least, where there is no slope
    assert not holds([0.1, -5.0], [Bend(0.1, 0.2), Bend(0.0, 5.1)])
    assert not holds([0.1, 0.1], [Bend(0.1, 0.0), None])
    told = by_pairs(predicted([0.1, -5.0], []), 0.2, 0.1, 0.3, 6)
    assert (told.change, told.half, told.pairs) == (0.2, pytest.approx(0.1), 6)
    assert by_pairs(told, math.nan, -math.inf, math.inf, 6).change == math.inf


def test_a_prediction_holds_as_far_as_both_intervals_tell():
    found = predicted([0.1, 0.1], [Bend(0.0, 0.03)])
    assert found.half == pytest.approx(0.03)
    assert held(found, 0.15, 0.11, 0.19)  # 0.05 apart, 0.03 and 0.04 open
    assert not held(found, 0.151, 0.111, 0.191)
    assert not held(found, math.inf, -math.inf, math.inf)
