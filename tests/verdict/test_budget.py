"""What a search has spent, against counting by hand."""

import pytest
from recipes import tiny

from metatune.inner.estimators import MIXFLOW
from metatune.recipe import schema
from metatune.verdict.budget import course, in_trainings, spent


def point(step, inner_steps=None, *, seeds=2, seconds=1.0, **further):
    line = {"step": step, "phase": 0, "held_out": 2.0, "seconds": seconds}
    line["held_out_each"] = [2.0] * seeds
    if inner_steps is not None:
        line |= {"objective": 2.0, "inner_steps": inner_steps}
    return {**line, **further}


def recipe(**outer):
    return tiny(inner={"steps": 6}, outer={"validation": schema.ValidationSpec(seeds=2), **outer})


def test_hypergradients_and_validations_are_counted():
    lines = [point(0, 6), point(1, 6), point(2)]
    found = spent(recipe(), lines, 13)
    assert found.inner_steps == 2 * 6 + 3 * 2 * 6
    assert found.gradients == pytest.approx(2 * 6 * MIXFLOW + 3 * 2 * 6)
    assert found.seconds == 3
    assert found.trainings(6) == 8


def test_a_course_has_the_points_that_were_better_than_all_before():
    losses = (2.0, None, 2.5, 1.5)
    lines = [
        point(k, 6, seeds=2 * (loss is not None), held_out=loss) for k, loss in enumerate(losses)
    ]
    # Each point has a hypergradient, and but for one two validations.
    assert course(recipe(), lines, 13) == ((18, 2.0), (18 + 6 + 18 + 18, 1.5))


@pytest.mark.parametrize(
    ("estimator", "forwards", "gradients"),
    [
        (schema.ForwardSpec(), 6, 6 * (1 + 2 * 13)),
        (schema.ForwardGradientSpec(directions=4), 6, 6 * 9),
        (schema.ZerothOrderSpec(directions=4), 8 * 6, 8 * 6),
    ],
)
def test_each_estimator_has_its_cost(estimator, forwards, gradients):
    """As the design's table of costs has it; differences train as often as they have sides."""
    found = spent(recipe(estimator=estimator), [point(0, 6, seeds=0, held_out=None)], 13)
    assert (found.inner_steps, found.gradients) == (forwards, gradients)


def test_members_windows_averages_and_differences_are_counted():
    members = recipe(population=schema.PopulationSpec(members=3))
    assert spent(members, [point(0, 6, seeds=0, held_out=None)], 1).inner_steps == 18
    truncated = recipe(unroll=schema.TruncatedSpec(window=2))
    found = spent(truncated, [point(0, 2, seeds=0, held_out=None)], 1)
    assert found.inner_steps == 6
    assert found.gradients == pytest.approx(4 + 2 * MIXFLOW)
    averaged = spent(recipe(ema=0.9), [point(1, 6, held_out_average=2.0)], 1)
    assert averaged.inner_steps == 6 + 2 * 2 * 6
    windows = [{"measured": True}, {"measured": False}]
    blended = spent(recipe(), [point(0, 6, blended={"windows": windows})], 1)
    assert blended.inner_steps == 6 + 2 * 6 + 2 * 6
    windows = [{"measured": True, "trainings": 3}]
    several = spent(recipe(), [point(0, 6, blended={"windows": windows})], 1)
    assert several.inner_steps == 6 + 2 * 6 + 2 * 3 * 6
    chosen = {"way": "damped", "trainings": 2}
    followed = spent(recipe(), [point(0, 6, seeds=0, held_out=None, chosen=chosen)], 1)
    assert followed.gradients == pytest.approx(2 * 6 * MIXFLOW)
    measured = chosen | {"measured": {"hypergradients": 9}}
    line = point(0, 6, seeds=0, held_out=None, chosen=measured)
    assert spent(recipe(), [line], 1).gradients == pytest.approx(9 * 6 * MIXFLOW)


def test_larger_sizes_count_as_steps_of_the_recipes_own():
    """Parameters grow with the square of the width: 1 + 2 + 4 + 8 times, and two seeds."""
    robust = recipe(robust=schema.RobustSpec(widths=(1, 2), depths=(1, 2), seeds=2))
    found = spent(robust, [point(0, 6), point(1)], 1)
    assert found.inner_steps == 2 * 15 * 6 + 2 * 15 * 2 * 6
    assert found.gradients == pytest.approx(2 * 15 * 6 * MIXFLOW + 2 * 15 * 2 * 6)


def test_a_budget_is_whole_trainings_and_one_at_least():
    assert in_trainings(35, 6) == 5
    assert in_trainings(3, 6) == 1
