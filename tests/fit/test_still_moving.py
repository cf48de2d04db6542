"""Whether a search had come to rest: the trend of its last points, and what is said of it."""

import dataclasses

import numpy as np
import pytest

from metatune.fit.searching.phases import End
from metatune.fit.searching.still_moving import LAST, course, trend
from metatune.recipe import schema
from metatune.report.search import NOISE, RATE_REST, closing

OUTER = schema.OuterSpec(steps=10)
REST = {"learning_rates": RATE_REST / 2, "mixture": 0.001}
MOVING = {"learning_rates": 0.07, "mixture": 0.012}


def lines(losses, moved=REST):
    """Of a search, whose last point no step is taken from."""
    found = [
        {"step": step, "held_out": loss, "objective": 1.0, "moved": moved}
        for step, loss in enumerate(losses)
    ]
    return [*found[:-1], {"step": len(losses) - 1, "held_out": losses[-1]}]


def result(losses, moved=REST, why=End.STEPS, outer=OUTER):
    return {
        "best_outer_step": int(np.argmin(losses)),
        "outer_steps": len(losses) - 1,
        "search": course(outer, lines(losses, moved), why),
    }


def test_the_trend_is_the_line_through_the_last_points():
    noise = np.array([0.01, -0.02, 0.0, 0.03, -0.02])
    losses = [9.0, 8.0, *(3 - 0.1 * np.arange(LAST) + noise)]
    (slope, level), covariance = np.polyfit(np.arange(2, 7), losses[2:], 1, cov=True)
    found = trend(lines(losses))
    assert found is not None and level > 0
    assert found["points"] == [2, 6]
    assert found["per_step"] == pytest.approx(slope)
    assert found["standard_error"] == pytest.approx(np.sqrt(covariance[0, 0]))


def test_points_that_were_not_judged_have_no_part_in_it():
    found = trend(lines([3.0, None, None, 2.4, None]))
    assert found == {"points": [0, 3], "per_step": pytest.approx(-0.2), "standard_error": None}
    assert trend(lines([3.0, None, None])) is None
    assert trend([]) is None


def test_a_search_at_rest_says_nothing():
    assert closing(result([3.0, 2.5, 2.4, 2.41, 2.39, 2.41, 2.4])) == []


def test_a_search_whose_last_point_is_the_best_was_improving():
    (told,) = closing(result([3.0, 2.9, 2.8, 2.7, 2.6, 2.5], MOVING))
    assert told.startswith("the search was still improving when it ended: held-out fell by 0.1 ±")
    assert told.endswith(
        " per outer step from point 1 to 5; point 5, the last, is the best; rates moved by 7% and "
        "shares moved by 1.2% per outer step. To go on: outer.steps=10 with --resume"
    )


def test_two_points_tell_no_noise():
    (told,) = closing(result([3.0, 2.9]))
    assert "held-out fell by 0.1 per outer step from point 0 to 1 (two points tell no" in told


def test_a_trend_beyond_noise_is_improvement_though_the_last_is_not_the_best():
    losses = [3.0, 2.8, 2.6, 2.4, 2.2, 2.21]
    found = result(losses)
    assert (
        found["search"]["held_out"]["per_step"]
        < -NOISE * (found["search"]["held_out"]["standard_error"])
    )
    (told,) = closing(found)
    assert "still improving" in told and "the best" not in told


def test_rates_that_move_without_improvement_ask_for_smaller_steps():
    (told,) = closing(result([3.0, 2.5, 2.4, 2.45, 2.38, 2.44, 2.41], MOVING))
    assert "had not come to rest when it ended: rates moved by 7% (2% would be rest)" in told
    assert "shares moved by 1.2% (1% would be rest) per outer step, though held-out" in told
    assert "lower outer.optimizer.learning_rate" in told
    assert "--resume" not in told


def test_how_to_go_on_depends_on_why_it_ended():
    losses = [3.0, 2.9, 2.8, 2.7, 2.6, 2.61]
    (told,) = closing(result(losses, why=End.PATIENCE))
    assert told.endswith("A larger outer.patience, with --resume, lets it go on")
    phases = dataclasses.replace(OUTER, steps=None, phases=(schema.PhaseSpec(5),))
    (told,) = closing(result(losses, outer=phases))
    assert told.endswith("More steps for the last of outer.phases, with --resume, let it go on")


def test_results_of_older_versions_say_nothing():
    assert closing({"best_outer_step": 3, "outer_steps": 3}) == []
