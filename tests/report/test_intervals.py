"""Intervals of paired differences, against a table and by simulation."""

import numpy as np
import pytest

from metatune.report.intervals import Interval, interval


def of(differences):
    differences = np.asarray(differences, float)
    count = len(differences)
    return {
        "difference": differences.mean(),
        "standard_error": differences.std(ddof=1) / np.sqrt(count) if count > 1 else None,
        "held_out_seeds": list(range(count)),
    }


def test_it_is_that_of_a_table_of_students_t():
    found = interval({"difference": -1.0, "standard_error": 0.5, "held_out_seeds": [0, 1, 2, 3, 4]})
    assert found is not None
    assert found.half == pytest.approx(0.5 * 2.7764, abs=1e-4)  # 4 degrees of freedom
    assert (found.low + found.high) / 2 == pytest.approx(-1.0)
    found = interval({"difference": 0.0, "standard_error": 1.0, "held_out_seeds": list(range(30))})
    assert found is not None
    assert found.half == pytest.approx(2.0452, abs=1e-4)  # 29 degrees of freedom


def test_it_holds_the_truth_in_95_of_100_experiments():
    """Of five normal pairs; two standard errors would hold it in 88."""
    drawn = np.random.default_rng(0).normal(0.3, 1.0, size=(4000, 5))
    found = [interval(of(row)) for row in drawn]
    held = np.mean([each.low <= 0.3 <= each.high for each in found if each is not None])
    assert abs(held - 0.95) < 3 * np.sqrt(0.95 * 0.05 / 4000)


@pytest.mark.parametrize("count", [0, 1, 2, 4])
def test_fewer_than_five_pairs_are_too_few_to_tell(count):
    result = {"difference": None, "standard_error": None, "held_out_seeds": []}
    assert interval(of(np.arange(count)) if count else result) is None


def test_beyond_noise_is_without_zero():
    assert Interval(-2.0, -1.0).beyond_noise
    assert Interval(0.1, 0.2).beyond_noise
    assert not Interval(-0.1, 0.2).beyond_noise
    # Differences all alike: no width.
    same = interval(of([-1.0] * 5))
    assert same == Interval(-1.0, -1.0)
    assert Interval(-1.0, -1.0).beyond_noise
