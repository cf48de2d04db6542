"""What is kept of slopes: averages, their noise, and what it leaves of a step, written out anew."""

import numpy as np
import pytest

from metatune.fit.signal.memory import CLEAR, blank, errors, kept, noise, wanted, with_slope
from metatune.tunables.blocks import WindowBlock

BLOCKS = [
    *(WindowBlock("rates", window, window / 2, (window + 1) / 2, False) for window in range(2)),
    WindowBlock("shares", 0, 0.0, 1.0, True),
]
ETA = {"rates": np.zeros((2, 3)), "shares": np.zeros((1, 2))}
ONES, APART = np.ones(3), np.array([1.0, 0.0])


def test_a_slope_is_the_mean_of_trainings_those_of_before_counting_half():
    memory, slope = with_slope(blank(BLOCKS, ETA), BLOCKS, 1, 4, ONES, np.array([1.0, 3.0]))
    assert slope == 2.0
    np.testing.assert_allclose(memory.slopes["rates"], [[0, 0, 0], [2 / 3] * 3], rtol=1e-6)
    memory, slope = with_slope(memory, BLOCKS, 1, 5, ONES, np.array([5.0]))
    assert slope == pytest.approx((1 * 2.0 + 5.0) / 2)
    assert memory.measured.tolist() == [-1, 5, -1]
    assert memory.trainings.tolist() == [0, 2, 0]


def test_noise_is_that_of_all_windows_of_a_tunable_together():
    memory = blank(BLOCKS, ETA)
    first, second = np.array([1.0, 3.0, 2.0]), np.array([0.0, 4.0])
    memory, _ = with_slope(memory, BLOCKS, 0, 0, ONES, first)
    memory, slope = with_slope(memory, BLOCKS, 1, 0, ONES, second)
    expected = (2 * first.var(ddof=1) + second.var(ddof=1)) / 3
    assert noise(memory, BLOCKS, 0) == noise(memory, BLOCKS, 1) == pytest.approx(expected)
    assert np.isnan(noise(memory, BLOCKS, 2))
    far = slope / np.sqrt(expected / 2)
    assert errors(memory, BLOCKS, 1) == pytest.approx(far)
    assert kept(memory, BLOCKS, 1) == pytest.approx(max(0, 1 - 1 / far**2))
    assert kept(memory, BLOCKS, 2) == 0  # never measured


def test_one_training_says_nothing_of_its_noise():
    memory, _ = with_slope(blank(BLOCKS, ETA), BLOCKS, 2, 0, APART, np.array([0.1]))
    assert kept(memory, BLOCKS, 2) == 1
    assert wanted(memory, BLOCKS, 2, most=4) == 4


def test_noise_that_becomes_known_later_counts_for_slopes_of_before():
    memory, slope = with_slope(blank(BLOCKS, ETA), BLOCKS, 1, 0, ONES, np.array([2.0]))
    assert errors(memory, BLOCKS, 1) == np.inf
    assert kept(memory, BLOCKS, 1) == 1
    of_other = np.array([-1.0, 1.0])
    memory, _ = with_slope(memory, BLOCKS, 0, 1, ONES, of_other)
    assert errors(memory, BLOCKS, 1) == pytest.approx(slope / of_other.std(ddof=1))
    assert kept(memory, BLOCKS, 1) == pytest.approx(1 - of_other.var(ddof=1) / slope**2)


@pytest.mark.parametrize(
    ("slope", "expected"), [(10.0, 1), (1.01 * np.sqrt(CLEAR**2 / 2 / 3), 3), (1e-3, 4)]
)
def test_as_many_trainings_are_wanted_as_make_a_slope_clear(slope, expected):
    """n new ones and as many again of before: 2 n slope² = CLEAR² variance."""
    apart = np.array([-1.0, 1.0]) / np.sqrt(2)  # of variance one
    memory, _ = with_slope(blank(BLOCKS, ETA), BLOCKS, 0, 0, ONES, slope + apart)
    assert wanted(memory, BLOCKS, 0, most=4) == expected
    assert wanted(blank(BLOCKS, ETA), BLOCKS, 0, most=4) == 4


def wandered(slope: float, scaled: bool, seed: int, steps: int = 30) -> float:
    """Where Adam has come to, in steps of its rate, by slopes of noise one, two at a time."""
    rng, memory = np.random.default_rng(seed), blank(BLOCKS, ETA)
    mean = square = at = 0.0
    for step in range(1, steps + 1):
        count = 2 if step == 1 or not scaled else wanted(memory, BLOCKS, 0, 2)
        memory, found = with_slope(memory, BLOCKS, 0, step, ONES, slope + rng.normal(size=count))
        mean, square = 0.9 * mean + 0.1 * found, 0.999 * square + 0.001 * found**2
        moved = mean / (1 - 0.9**step) / np.sqrt(square / (1 - 0.999**step))
        at -= moved * (kept(memory, BLOCKS, 0) if scaled else 1)
    return at


def test_noise_wanders_less_and_signal_comes_as_near():
    noise_alone = [[wandered(0.0, scaled, seed) for seed in range(20)] for scaled in (False, True)]
    spreads = np.sqrt(np.mean(np.square(noise_alone), axis=1))
    assert spreads[1] < 0.6 * spreads[0]
    signal = [
        np.mean([wandered(3.0, scaled, seed) for seed in range(5)]) for scaled in (False, True)
    ]
    assert signal[1] < 0.85 * signal[0] < 0
