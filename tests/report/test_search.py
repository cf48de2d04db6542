"""Which point of a search is named."""

import pytest

from metatune.report.search import best_point


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ({"best_outer_step": 3, "outer_steps": 4}, "point 3 of 4"),
        (
            {"best_outer_step": 3, "outer_steps": 4, "best_is_average": True},
            "point 3 of 4, the moving average there",
        ),
        ({"best_outer_step": -1, "outer_steps": 0}, "the recipe's own, nothing being judged yet"),
        ({}, "a point that isn't told"),
    ],
)
def test_the_best_point_is_named(result, words):
    assert best_point(result) == words
