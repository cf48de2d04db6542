"""How long a search still takes."""

from types import SimpleNamespace
from typing import Any

import pytest
from recipes import tiny

from metatune.fit.searching.phases import inner_steps_left
from metatune.fit.telling.remaining import Taken, seconds_left
from metatune.recipe.phases import resolved
from metatune.recipe.schema import FullSpec, OnlineSpec, PhaseSpec


def taken(*pairs):
    return [Taken(*pair) for pair in pairs]


@pytest.mark.parametrize(
    ("before", "ahead", "count", "seconds"),
    [
        ((), (10, 10), 2, 0.0),
        (taken((10, 9.0)), (10, 10), 2, 18.0),  # the first, which compiles, for want of others
        (taken((10, 9.0), (10, 1.0)), (10, 10), 2, 2.0),
        (taken((10, 9.0), (10, 1.0), (20, 9.0)), (20, 40), 2, 6.0),  # a horizon that compiles
        (taken((10, 9.0), (10, 1.0), (20, 9.0), (20, 3.0)), (20, 40), 2, 8.0),
        (taken((10, 9.0), (10, 1.0)), (), 3, 3.0),
        (taken((10, 9.0), (10, 1.0)), (5, 10, 30), 1, 3.0),  # of a list the last
        (taken((10, 9.0), (10, 1.0)), (10,), 0, 0.0),
    ],
)
def test_what_is_left_takes_what_inner_steps_take_that_compile_nothing(
    before, ahead, count, seconds
):
    assert seconds_left(before, ahead, count) == pytest.approx(seconds)


def left(*phases, step=0, phase=0, start=0):
    recipe = tiny(inner={"steps": 100}, outer={"phases": phases})
    search: Any = SimpleNamespace(step=step, phase=phase, phase_start=start)
    return inner_steps_left(recipe, resolved(recipe.outer), search)


def test_each_outer_step_that_is_left_has_the_inner_steps_of_its_phase():
    growing = PhaseSpec(4, unroll=FullSpec(horizons=(40, 60, 100)))
    whole, online = PhaseSpec(2), PhaseSpec(2, unroll=OnlineSpec(20))
    assert left(growing, whole) == [40, 60, 100, 100, 100, 100]
    assert left(growing, whole, step=1) == [60, 100, 100, 100, 100]
    # The first was over early.
    assert left(growing, whole, online, step=3, phase=1, start=2) == [100, 20, 20]
