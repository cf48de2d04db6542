"""What a run took."""

import pytest

from metatune.fit.telling.expectation import MIB, Expectation, comparison, held_bytes, measured


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([(0, 10, 9.0)], 9.0),
        ([(0, 10, 9.0), (0, 10, 1.0), (0, 10, 2.0)], 1.5),
        ([(0, 10, 9.0), (0, 10, 1.0), (1, 10, 8.0), (1, 10, 2.0)], 1.5),
        ([(0, 10, 9.0), (1, 10, 8.0)], 8.5),
        # Horizons that grow: 0.1 s an inner step, 15 inner steps in the mean.
        ([(0, 10, 9.0), (0, 10, 1.0), (0, 20, 9.0), (0, 20, 2.0)], 1.5),
    ],
)
def test_outer_steps_that_compile_are_left_out_if_there_are_others(lines, expected):
    keys = ("phase", "inner_steps", "seconds")
    found = measured([dict(zip(keys, line, strict=True)) for line in lines])
    assert found["outer_step_seconds"] == pytest.approx(expected)


def test_nothing_is_measured_without_an_outer_step():
    assert "outer_step_seconds" not in measured([])


def test_what_the_process_holds_already_is_part_of_what_is_expected():
    expected = Expectation(3 * MIB, 2.0, 30.0, held_bytes=4 * MIB)
    said = "expected: 3 MiB of arrays on the device, beside 4 MiB of the process, 2.0 s per outer"
    assert expected.sentence.startswith(said)
    told = comparison(expected, {"process_bytes": 8 * MIB})
    assert (
        "peaked at 8 MiB, freed memory that is kept included (expected 7 MiB, 3 of them arrays)"
        in told
    )
    assert "beside" not in Expectation(3 * MIB, 2.0, 30.0).sentence


def test_the_process_holds_more_than_its_libraries():
    assert 50 * MIB < held_bytes() < 2**40
