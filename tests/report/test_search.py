"""Which point of a search is named."""

import pytest

from metatune.report.search import best_point, chosen, divergences


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


def test_what_nothing_was_judged_of_is_not_called_the_best():
    assert chosen({"best_outer_step": -1, "outer_steps": 2}) == (
        "the recipe's own, nothing being judged yet"
    )
    assert (
        chosen({"best_outer_step": 0, "outer_steps": 2}) == "point 0 of 2, the best in validation"
    )


def test_divergences_are_told_as_far_as_they_are_known():
    rose = {"to": 0, "rise": 0.3, "standard_error": 0.1, "scale": 0.5}
    lines = [
        {"step": 0, "diverged_sides": 2},
        {"step": 1, "taken_back": rose},
        {"step": 2, "taken_back": {**rose, "rise": None}, "diverged_sides": 0},
        {"step": 4, "taken_back": {**rose, "rise": None}},
    ]
    assert divergences(lines[:2]) == [
        "trainings on either side of the meta-parameters diverged at point 0"
    ]
    assert divergences(lines)[0] == (
        "trainings that validate diverged at points 2, 4: the search went back from there"
    )
