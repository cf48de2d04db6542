"""What a run took."""

import pytest

from metatune.fit.expectation import measured


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([(0, 9.0)], 9.0),
        ([(0, 9.0), (0, 1.0), (0, 2.0)], 1.5),
        ([(0, 9.0), (0, 1.0), (1, 8.0), (1, 2.0)], 1.5),
        ([(0, 9.0), (1, 8.0)], 8.5),
    ],
)
def test_outer_steps_that_compile_are_left_out_if_there_are_others(lines, expected):
    found = measured([{"phase": phase, "seconds": seconds} for phase, seconds in lines])
    assert found["outer_step_seconds"] == expected


def test_nothing_is_measured_without_an_outer_step():
    assert "outer_step_seconds" not in measured([])
