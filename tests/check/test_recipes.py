"""A recipe's training as what is checked, and the certificate beside the result of its run."""

import dataclasses
import hashlib
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recipes import tiny

from metatune.check.growth import judge_growth
from metatune.check.levels import GREEN
from metatune.check.measuring import flipped_choices
from metatune.check.numbers import CheckedHorizon
from metatune.check.recipes import draw, first_phase_alone, shortened, subject_of
from metatune.check.runs import sha256
from metatune.check.subject import FixedDraw, sample
from metatune.inner import prepare, rescaled
from metatune.inner.schedules import base_rates
from metatune.recipe import schema, writing
from metatune.recipe.faults import RecipeError

RECIPE = tiny(
    inner={
        "optimizer": schema.AdamWSpec(learning_rate=1e-2, schedule=schema.CosineSpec(warmup=0.1)),
        "steps": 20,
    },
    tune={"learning_rates": schema.LearningRatesSpec(per="global", windows=4)},
)


@pytest.fixture(scope="module")
def training():
    return prepare(RECIPE)


def unrolled(training, unroll):
    outer = dataclasses.replace(RECIPE.outer, unroll=unroll)
    return dataclasses.replace(training, recipe=dataclasses.replace(RECIPE, outer=outer))


def test_a_rescaled_training_is_that_of_the_shorter_recipe(training):
    short = rescaled(training, 8)
    inner = dataclasses.replace(RECIPE.inner, steps=8)
    assert short.recipe == dataclasses.replace(RECIPE, inner=inner)
    eta = short.initial_eta() | {"learning_rates": np.log([[1.0], [2.0], [3.0], [4.0]])}
    rates = next(iter(short.trajectory(eta).learning_rates.values()))
    base = base_rates(RECIPE.inner.optimizer.schedule, 1e-2, 8)
    np.testing.assert_allclose(rates, base * np.repeat([1, 2, 3, 4], 2), rtol=1e-6)
    assert short.trajectory(eta).mixture.shape == (8, 2)
    assert training.trajectory(eta).mixture.shape == (20, 2)


def test_a_whole_training_can_be_shorter_down_to_a_step_a_window(training, tmp_path):
    subject = subject_of(training, tmp_path)
    assert (subject.steps, subject.window, subject.whole) == (20, None, None)
    short = subject.shorter(5)
    assert short is not None
    assert short.steps == 5
    assert subject.shorter(3) is None


def test_the_objective_is_taken_where_the_search_takes_it(training, tmp_path):
    assert subject_of(training, tmp_path).points(20) == {20: 1.0}
    objective = dataclasses.replace(
        RECIPE.outer.objective, trajectory=schema.TrajectorySpec(points=2)
    )
    outer = dataclasses.replace(RECIPE.outer, objective=objective)
    recipe = dataclasses.replace(RECIPE, outer=outer)
    along = subject_of(dataclasses.replace(training, recipe=recipe), tmp_path)
    assert along.points(20) == {10: 0.5, 20: 0.5}
    short = along.shorter(6)
    assert short is not None
    assert short.points(6) == {3: 0.5, 6: 0.5}


@pytest.mark.parametrize(
    ("unroll", "steps", "window", "whole"),
    [
        (schema.TruncatedSpec(window=6), 20, 6, 20),
        (schema.OnlineSpec(window=6), 6, None, 20),
        (schema.OnlineSpec(window=6, lifetime=12), 6, None, 12),
    ],
)
def test_a_stretch_has_its_whole(training, tmp_path, unroll, steps, window, whole):
    subject = subject_of(unrolled(training, unroll), tmp_path)
    assert (subject.steps, subject.window) == (steps, window)
    assert subject.whole is not None
    assert (subject.whole.steps, subject.whole.window) == (whole, None)
    assert subject.horizon == CheckedHorizon(steps, min(window or steps, steps), whole)


def test_growth_is_watched_behind_each_window(training, tmp_path):
    """Where training jumps, at a thousand times the rate, the first windows are dominated by it."""
    subject = subject_of(training, tmp_path)
    assert [block.name for block in subject.blocks][:2] == [
        "learning_rates window 1",
        "learning_rates window 2",
    ]
    found = sample(subject, draw(training, 0), "hypergradient")
    assert len(found.grown) == 4 + 2
    assert found.damped == 1.0
    assert judge_growth(numbers_of(subject, [found])).finding == GREEN
    hot = replaced(training, learning_rate=3.0)
    subject = subject_of(hot, tmp_path)
    found = sample(subject, draw(hot, 0), "hypergradient")
    judged = judge_growth(numbers_of(subject, [found]))
    assert "learning_rates window 1" in judged.dominated
    assert judged.origin is not None
    assert 0 < judged.origin["before"] <= 20
    online = schema.OnlineSpec(window=4)
    assert subject_of(unrolled(training, online), tmp_path).blocks == ()


def replaced(training, **changes):
    """The training with another optimizer."""
    inner = dataclasses.replace(
        RECIPE.inner, optimizer=dataclasses.replace(RECIPE.inner.optimizer, **changes)
    )
    return prepare(dataclasses.replace(RECIPE, inner=inner))


def numbers_of(subject, samples) -> Any:
    """Those alone that growth is judged by."""
    return types.SimpleNamespace(
        samples=samples, blocks=tuple(block.name for block in subject.blocks)
    )


def test_of_phases_the_first_is_checked():
    forward, online = schema.ForwardSpec(segment=4), schema.OnlineSpec(window=5)
    phases = (
        schema.PhaseSpec(steps=2, estimator=forward, unroll=online),
        schema.PhaseSpec(steps=3),
    )
    outer = dataclasses.replace(RECIPE.outer, steps=None, phases=phases)
    alone = first_phase_alone(dataclasses.replace(RECIPE, outer=outer))
    assert (alone.outer.steps, alone.outer.phases) == (2, None)
    assert (alone.outer.estimator, alone.outer.unroll) == (forward, online)
    assert first_phase_alone(RECIPE) == RECIPE


@pytest.mark.parametrize(
    ("objective", "trainer", "fault"),
    [
        (
            schema.ObjectiveSpec(measure="accuracy"),
            None,
            "outer.objective.measure = 'accuracy': moves in steps, so that differences converge "
            "to nothing; check the loss instead: outer.objective.measure=loss",
        ),
        (
            schema.ObjectiveSpec(),
            schema.TrainerSpec(command="trainer"),
            "trainer = {'command': 'trainer', 'timeout_seconds': None, 'parallel': 1}: trains "
            "elsewhere, with no hypergradient here that could be checked; check a training here: "
            "trainer=null outer.estimator.kind=mixflow",
        ),
    ],
)
def test_what_has_no_hypergradient_is_refused(objective, trainer, fault):
    estimator = schema.ZerothOrderSpec()
    outer = dataclasses.replace(RECIPE.outer, estimator=estimator, objective=objective)
    with pytest.raises(RecipeError) as refused:
        first_phase_alone(dataclasses.replace(RECIPE, outer=outer, trainer=trainer))
    assert fault in str(refused.value)


def test_what_lives_on_is_refused():
    estimator, unroll = schema.PersistentESSpec(), schema.OnlineSpec(window=2)
    outer = dataclasses.replace(RECIPE.outer, estimator=estimator, unroll=unroll)
    with pytest.raises(RecipeError) as refused:
        first_phase_alone(dataclasses.replace(RECIPE, outer=outer))
    assert (
        "outer.estimator.kind = 'persistent_es': is unbiased along a lifetime, not in an outer "
        "step; check the whole: outer.estimator={kind: zeroth_order} outer.unroll={kind: full}"
    ) in str(refused.value)


def test_draws_differ_by_seed_and_are_the_same_each_time(training):
    first, again, other = draw(training, 0), draw(training, 0), draw(training, 1)
    for one, two, three in zip(
        jax.tree.leaves(first.state.params),
        jax.tree.leaves(again.state.params),
        jax.tree.leaves(other.state.params),
        strict=True,
    ):
        np.testing.assert_array_equal(one, two)
        assert one.std() == 0 or not np.array_equal(one, three)  # norms begin at one
    np.testing.assert_array_equal(first.batches(3).tokens, again.batches(3).tokens)
    assert not np.array_equal(first.batches(3).tokens, other.batches(3).tokens)
    assert not np.array_equal(first.outer_batches[0].tokens, other.outer_batches[0].tokens)


@pytest.mark.parametrize("steps", [0, 3, 21])
def test_steps_that_cannot_be_are_refused(training, steps):
    with pytest.raises(RecipeError) as refused:
        shortened(training, steps)
    assert str(refused.value) == (
        f"check: 1 fault\n  --steps = {steps}: must be from 4, a step for each window, to "
        "inner.steps, 20; give another number, or leave it out for the recipe's own horizon"
    )
    assert shortened(training, 4).recipe.inner.steps == 4


def test_a_recipe_s_hash_is_that_of_its_text():
    assert sha256(RECIPE) == hashlib.sha256(writing.to_yaml(RECIPE).encode()).hexdigest()


def test_choices_that_flip_over_a_step_are_counted(tmp_path):
    """Against the routers of the two trainings, token by token."""
    training = prepare(
        dataclasses.replace(
            tiny(
                {
                    "model_type": "olmoe",
                    "initializer_range": 0.3,
                    "num_experts": 5,
                    "num_experts_per_tok": 2,
                },
                inner={"steps": 2, "optimizer": schema.AdamWSpec(learning_rate=3e-2)},
                tune={"learning_rates": schema.LearningRatesSpec(per="kind", windows=1)},
            )
        )
    )
    subject = subject_of(training, tmp_path)
    held = FixedDraw(subject, subject.draw(0))
    gradient = np.linspace(-1, 2, len(subject.flat))
    found = flipped_choices(held, gradient, 2.0)
    down = -2.0 * np.sqrt(len(gradient)) * gradient / np.linalg.norm(gradient)
    kept = flips = 0
    for batch in held.draw.outer_batches:
        here, there = (
            training.model.hidden_and_routing(
                training.merged(held.trained(by, "")), jnp.asarray(batch.tokens)[:, :-1]
            )[1]
            for by in (0 * down, down)
        )
        assert here is not None and there is not None
        here, there = here.experts, there.experts
        assert here.shape == (*here.shape[:2], batch.tokens.shape[1] - 1, 2)
        for one, other in zip(
            np.asarray(here).reshape(-1, 2), np.asarray(there).reshape(-1, 2), strict=True
        ):
            kept += len(set(one) & set(other))
            flips += len(set(one) - set(other))
    assert found is not None
    assert found.choices == kept + flips
    assert found.share == pytest.approx(flips / found.choices)
    assert 0.005 < found.share < 0.9
    nowhere = flipped_choices(held, 0 * gradient, 2.0)
    assert nowhere is not None and nowhere.share == 0
    without = FixedDraw(dataclasses.replace(subject, choices=None), held.draw)
    assert flipped_choices(without, gradient, 2.0) is None
