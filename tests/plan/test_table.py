"""The table of a plan in terminals of several widths."""

import io

import pytest
from rich.console import Console

from metatune.plan import Alternative, Memory, Pace, Plan
from metatune.plan.table import COLUMNS, table

MIB = 2**20
MADE = Plan(
    (
        Alternative(
            "as in the recipe",
            (),
            Memory(30 * MIB, 1234 * MIB, 410 * MIB, 12 * MIB, 0, 0, 0),
            Pace(12.5, 3.0, 15.5, 4000.0, 20.0, differences=7.0, choice=8.0),
        ),
        Alternative("reverse", ("outer.estimator.kind=reverse",), None, None, "nothing fits"),
    ),
    2**33,
    "cpu",
)


def printed(width):
    written = io.StringIO()
    Console(file=written, width=width).print(table(MADE))
    return written.getvalue().splitlines()


def test_a_wide_terminal_has_a_row_for_each_way():
    lines = printed(140)
    assert lines[0].split() == " ".join(COLUMNS).split()
    assert lines[1].startswith("as in the recipe") and "1.2 GiB" in lines[1]
    assert "differences of trainings take up to 7.0 s more in an outer step" in " ".join(lines)
    assert "takes up to 8.0 s more in an outer step, in the mean" in " ".join(lines)


@pytest.mark.parametrize("width", [60, 80])
def test_a_narrow_one_has_each_number_with_its_name_on_one_line(width):
    lines = printed(width)
    assert max(map(len, lines)) <= width
    assert "as in the recipe" in {line.strip() for line in lines}
    text = "\n".join(lines)
    for said in ("state 30.0 MiB", "carry 1.2 GiB", "outer step 15.5 s", "run 67 min", "fits yes"):
        assert said in text
    assert "reverse: nothing fits" in text
