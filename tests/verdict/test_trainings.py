"""Trainings by other optimizers, against the libraries and the papers that they are of."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from recipes import prepared, tiny

from metatune.fit.making import artefact_of
from metatune.inner import prepare
from metatune.ladder.measuring import held_out_loss
from metatune.recipe import schema
from metatune.tunables.hyper import Hyper
from metatune.verdict.contestants.contestant import BY_SIZE
from metatune.verdict.points import Plain
from metatune.verdict.trainings import OPTIMIZERS, setting_of, shortened, trainings

RESULT = {"status": "unfinished", "unit": "nats per byte", "best_outer_step": 0, "outer_steps": 0}
RESULT |= dict.fromkeys(("objective_before", "objective_after", "difference", "standard_error"))
RESULT |= {"held_out_seeds": [], "before": [], "after": []}


def default_of(training):
    return artefact_of(training, training.initial_eta(), RESULT)


@pytest.fixture(scope="module")
def training():
    return prepared(tiny())


@pytest.fixture(scope="module")
def hyper(training):
    """Of the first inner steps, as the recipe has them."""

    def at(step) -> Hyper:
        return training.sampled.hyper_at(training.initial_eta(), step)

    return at


def gradients(params, count):
    """Some, all different."""
    keys = jax.random.split(jax.random.key(3), count)
    leaves, tree = jax.tree.flatten(params)
    return [
        jax.tree.unflatten(
            tree,
            [
                jax.random.normal(each, leaf.shape)
                for each, leaf in zip(jax.random.split(key, len(leaves)), leaves, strict=True)
            ],
        )
        for key in keys
    ]


def flat(tree):
    return np.concatenate(
        [np.ravel(np.asarray(leaf, np.float64)) for leaf in jax.tree.leaves(tree)]
    )


def test_prodigy_is_optax_s_by_a_schedule(training, hyper):
    """Three updates with rates of their own, against optax that is given the schedule."""
    made = OPTIMIZERS["prodigy"](training)
    state = made.initialise(jax.random.key(0))
    own = training.recipe.inner.optimizer
    rates = jnp.asarray([1.0, 0.5, 0.25])
    theirs = optax.chain(
        optax.clip_by_global_norm(own.clip_norm),
        optax.contrib.prodigy(
            lambda count: rates[count],
            betas=(own.b1, own.b2),
            eps=own.eps,
            weight_decay=own.weight_decay,
        ),
    )
    params = wanted = state.params
    opt_state, their_state = state.opt_state, theirs.init(params)
    for step, grads in enumerate(gradients(params, 3)):
        at = hyper(step)
        rate = jax.tree.map(
            lambda leaf, step=step: jnp.full_like(leaf, rates[step]), at.learning_rate
        )
        at = at._replace(learning_rate=rate)
        params, opt_state = made.sampled.update(grads, opt_state, params, at)
        moves, their_state = theirs.update(grads, their_state, wanted)
        wanted = optax.apply_updates(wanted, moves)
    assert flat(params) == pytest.approx(flat(wanted), rel=1e-5, abs=1e-8)
    assert not np.allclose(flat(params), flat(state.params))


def test_schedule_free_is_the_recipe_with_that_optimizer(training):
    own = training.recipe.inner.optimizer
    spec = schema.ScheduleFreeAdamWSpec(
        learning_rate=own.learning_rate,
        schedule=schema.ConstantSpec(warmup=own.schedule.warmup),
        weight_decay=own.weight_decay,
        clip_norm=own.clip_norm,
    )
    other = prepare(tiny(inner={"optimizer": spec}))
    wanted = held_out_loss(trainings(other, default_of(other)).of_artefact(default_of(other)), 2)
    point = Plain(schedule="constant", optimizer="schedule_free")
    found = held_out_loss(trainings(training, default_of(training)).followed(point), 2)
    assert found == pytest.approx(wanted, rel=1e-6)


def test_a_descent_follows_the_angle_of_gradient_and_last_update(training, hyper):
    """By hand: log factors are sums of β cos(g_t, θ_{t-1} - θ_t), and rates are times their exp."""
    made = OPTIMIZERS["online"](training)
    state = made.initialise(jax.random.key(0))
    params, beta = state.params, 0.3
    opt_state = state.opt_state._replace(rate=jnp.float32(beta))
    own = training.initialise(jax.random.key(0)).opt_state
    plain, log_factor, moved = params, 0.0, None
    for step, grads in enumerate(gradients(params, 3)):
        if moved is not None:
            one, other = flat(grads), flat(moved)
            log_factor += beta * one @ other / np.linalg.norm(one) / np.linalg.norm(other)
        at = hyper(step)
        by = float(np.exp(log_factor))
        faster = jax.tree.map(lambda leaf, by=by: by * leaf, at.learning_rate)
        after, own = training.sampled.update(grads, own, plain, at._replace(learning_rate=faster))
        moved, plain = jax.tree.map(jnp.subtract, plain, after), after
        params, opt_state = made.sampled.update(grads, opt_state, params, at)
    assert log_factor != 0
    assert float(opt_state.log_factor) == pytest.approx(log_factor, rel=1e-4)
    assert flat(params) == pytest.approx(flat(plain), rel=1e-5, abs=1e-8)


def test_a_shortened_training_is_the_recipe_of_fewer_steps(training):
    """Its schedules squeezed, as a recipe's are."""
    short = tiny(
        inner={"steps": 3},
        tune={"mixture": None, "learning_rates": schema.LearningRatesSpec(per="layer")},
    )
    other = prepare(short)
    point = Plain(schedule="constant", warmup=0.0, shares=(0.5, 0.5))
    wanted = trainings(other, default_of(other)).followed(replace(point, shares=()))
    found = trainings(training, default_of(training)).followed(point, 0.5)
    assert found.training.recipe.inner.steps == 3
    assert held_out_loss(found, 1) == pytest.approx(held_out_loss(wanted, 1), rel=1e-6)
    assert shortened(training, 1.0) is training


def test_contestants_are_told_what_there_is(training):
    setting = setting_of(training, default_of(training))
    assert setting.mixtures["recipe"] == (0.5, 0.5)
    assert setting.mixtures["target"] == setting.target == (1.0, 0.0)
    sizes = np.asarray([len(domain.train) for domain in training.corpus.domains])
    assert setting.mixtures[BY_SIZE] == pytest.approx(tuple(sizes / sizes.sum()))
    assert setting.coordinates == sum(leaf.size for leaf in training.initial_eta().values())
    assert (setting.optimizer, setting.steps, setting.plain) == ("adamw", 6, True)
    averaged = prepared(tiny(tune=schema.TuneSpec(averaging=schema.AveragingSpec())))
    told = setting_of(averaged, default_of(averaged))
    assert (dict(told.mixtures), told.plain) == ({}, False)


def test_mixtures_keep_to_the_caps():
    mixture = schema.MixtureSpec(max_epochs=1.0, production_tokens=2_000_000)
    training = prepare(tiny(tune={"mixture": mixture}))
    setting = setting_of(training, default_of(training))
    assert setting.caps
    for shares in setting.mixtures.values():
        assert sum(shares) == pytest.approx(1)
        assert all(s <= cap + 1e-9 for s, cap in zip(shares, setting.caps, strict=True))
