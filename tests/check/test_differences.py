"""Derivatives against slopes of whole trainings: at which ε, and what is beyond their noise."""

import numpy as np
import pytest

from metatune.check.differences import DirectionRow, compared, rows
from metatune.check.levels import (
    ESTIMATOR,
    GREEN,
    LEARNING_RATE,
    ROUNDING,
    SAMPLING,
    UNSETTLED,
    Finding,
    unresolved,
)
from metatune.check.numbers import Sides
from metatune.check.slopes import EPSILONS, difference, wanted

EPS = float(np.finfo(np.float32).eps)


def along(derivatives, differences, noise, error=0.0, epsilon=0.01):
    both = zip(derivatives, differences, strict=True)
    return [
        DirectionRow(str(i), one, other, noise, error, epsilon, "random")
        for i, (one, other) in enumerate(both)
    ]


def test_differences_are_judged_beyond_their_noise():
    def found(derivatives, noise, error=0.0, rounding=0.0):
        return compared(along(derivatives, (1.0, -2.0, 3.0), noise, error), rounding).finding

    assert found((1.02, -2.0, 3.0), 0.0) == GREEN
    assert found((1.3, -2.0, 3.0), 0.0) == Finding("amber", (ESTIMATOR,))
    assert found((1.3, -2.0, 3.0), 0.2) == GREEN
    assert found((1.3, -2.0, 3.0), 0.0, error=0.1) == GREEN
    assert found((2.0, -2.0, 3.0), 0.0) == Finding("red", (ESTIMATOR,))
    assert found((-0.1, -2.0, 3.0), 0.0) == Finding("red", (ESTIMATOR,))
    assert found((1.0, -2.0, 3.0), np.inf) == Finding("red", (LEARNING_RATE,))


def test_what_lies_within_a_large_noise_is_not_resolved_and_what_is_beyond_is_red():
    def found(derivative, rounding=0.0, error=0.0):
        return compared(along((derivative, -2.0, 3.0), (1.0, -2.0, 3.0), 2.0, error), rounding)

    assert found(1.0).finding == unresolved(UNSETTLED)
    assert found(4.5).finding == unresolved(UNSETTLED)
    assert found(1.0, rounding=0.002).finding == unresolved(ROUNDING)
    assert found(1.0, error=1.0).finding == unresolved(SAMPLING)
    assert found(50.0).finding == Finding("red", (ESTIMATOR,))
    assert found(1e27).ratio > 1e26


@pytest.mark.parametrize("derivative", [0.0, 1e-9, -3e-7])
def test_slopes_of_zero_on_both_sides_are_hidden_by_rounding(derivative):
    found = compared(along([derivative] * 2, [0.0, 0.0], noise=3 * EPS / 0.3, epsilon=0.3), 3 * EPS)
    assert found.finding == unresolved(ROUNDING)
    assert found.excess == 0
    wrong = compared(along([0.5] * 2, [0.0, 0.0], noise=3 * EPS / 0.3, epsilon=0.3), 3 * EPS)
    assert wrong.finding == Finding("red", (ESTIMATOR,))


@pytest.mark.parametrize(
    ("values", "next_one"),
    [
        ({}, 0),  # the smallest whose rounding is below a hundredth of the slope
        ({0: 1.0, 1: 1.01}, None),  # settled
        ({0: 1.0, 1: 0.5}, 1),  # nothing smaller is left
        ({1: 1.0, 2: 0.5}, 0),  # smaller ones first
        ({0: 0.7, 1: 1.0, 2: 0.5}, None),  # a valley at the smallest
        ({0: 0.1, 1: 1.0, 2: 0.5}, 2),  # smaller ones are worse: larger ones
        ({1: 1.0, 2: 0.5, 3: 0.4}, 3),  # better at the larger end: on
    ],
)
def test_differences_are_looked_for_downhill(values, next_one):
    pairs = {EPSILONS[k]: (d * EPSILONS[k], -d * EPSILONS[k]) for k, d in values.items()}
    assert wanted(pairs, 1e-9, 1.0) == next_one


def test_the_first_step_is_a_hundred_times_above_rounding():
    assert wanted({}, 1e-9, 1.0) == 0
    assert wanted({}, 1e-4, 1.0) == 4
    assert wanted({}, 0.0, 0.0) == 0
    assert wanted({}, 1e-7, 0.0) == len(EPSILONS) - 2


def test_the_noise_of_a_difference_is_what_a_larger_step_changes_and_rounding():
    pairs = {e: (3.0 + d * e, 3.0 - d * e) for e, d in zip(EPSILONS, (1.0, 0.8), strict=False)}
    epsilon, value, noise = difference(pairs, rounding=1e-5)
    assert (epsilon, value) == (EPSILONS[0], pytest.approx(1.0))
    assert noise == pytest.approx(0.2 + 1e-5 / 1e-4)
    diverged = {EPSILONS[0]: (np.inf, 3.0), EPSILONS[1]: (np.inf, np.inf)}
    assert difference(diverged, rounding=1e-5).noise == np.inf


FINE = (
    3.042,
    {  # objective, and slopes at the ε, of the quickstart over 25 steps
        "learning_rates[1,0]": (
            -0.0334,
            (-0.03219, -0.03355, -0.03326, -0.03317, -0.03319, -0.03317, -0.03308, -0.03216),
        ),
        # Nearly the signs of gradients at first, Adam's updates have another slope from 0.001 on.
        "mixture[0,2]": (
            0.0302,
            (0.0298, 0.03016, 0.02718, 0.0219, 0.00683, 0.00453, 0.00787, 0.00881),
        ),
        "random 2": (
            -0.0138,
            (-0.01192, -0.01395, -0.01383, -0.01387, -0.01366, -0.01252, -0.01273, -0.01331),
        ),
    },
)
CHAOTIC = (
    3.265,
    {  # at a learning rate of 0.3, over 40 steps
        "mixture[0,1]": (
            2.7e28,
            (-2.13861, -3.54581, 0.66149, 2.47739, -0.22708, 0.15205, 0.04941, 0.02323),
        ),
        "random 1": (
            -4.8e27,
            (9.67264, -2.89251, 1.92595, -1.51226, -0.82467, -0.21441, -0.00404, 0.00175),
        ),
    },
)


def looked_at(measured):
    """The differences of slopes at all ε, of those that the search for ε asks for."""
    value, slopes = measured
    rounding, found = EPS * value, []
    scale = float(np.sqrt(np.mean([derivative**2 for derivative, _ in slopes.values()])))
    for name, (derivative, differences) in slopes.items():
        values = {}
        while (at := wanted(values, rounding, scale)) is not None:
            for k in (at, at + 1):
                by = EPSILONS[k] * differences[k]
                values[EPSILONS[k]] = (value + by, value - by)
        found.append(Sides(name, "coordinate", derivative, 0.0, values))
    return found, rounding


def test_the_slope_of_the_finest_step_is_the_one_that_is_compared():
    slopes, rounding = looked_at(FINE)
    found = compared(rows(slopes, rounding), rounding)
    assert found.finding == GREEN
    assert found.sign_agreement == 1
    fine = next(row for row in found.rows if row.name == "mixture[0,2]")
    assert (fine.epsilon, fine.difference) == (EPSILONS[0], pytest.approx(0.0298))
    assert fine.noise == pytest.approx(0.00036 + rounding / EPSILONS[0])
    wrong = [slope._replace(derivative=1.5 * slope.derivative) for slope in slopes]
    found = compared(rows(wrong, rounding), rounding)
    assert found.finding == Finding("red", (ESTIMATOR,))


def test_slopes_of_a_chaotic_training_are_off():
    slopes, rounding = looked_at(CHAOTIC)
    found = compared(rows(slopes, rounding), rounding)
    assert found.finding == Finding("red", (ESTIMATOR,))
    assert found.ratio > 1e24


def test_exact_zeros_agree():
    found = compared(along([0.0, 0.0], [0.0, 0.0], noise=0.0), 0.0)
    assert (found.excess, found.relative_error, found.ratio) == (0.0, 0.0, 0.0)
    assert found.finding == unresolved(ROUNDING)
