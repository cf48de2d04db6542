"""Learned updates in trainings small enough for double precision."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metatune.hypergrad import Forward, MixFlow, Problem, Reverse, State, hypergradient, train
from metatune.inner import optimizers
from metatune.models import ParameterNames
from metatune.recipe import schema
from metatune.tunables import Hyper, Setting
from metatune.tunables.learned_update import build

STEPS = 4
NAMES = {
    "embed": ParameterNames(("model.embed_tokens.weight",), stacked=False),
    "up": ParameterNames(("layers.0.mlp.up.weight", "layers.1.mlp.up.weight"), True),
    "norm": ParameterNames(("layers.0.norm.weight", "layers.1.norm.weight"), True),
}
SHAPES = {"embed": (5, 4), "up": (2, 4, 4), "norm": (2, 4)}
ADAMW = schema.AdamW(learning_rate=0.05, clip_norm=0.5, weight_decay=0.1)
SMALL = {"hidden_size": 4, "decays": (0.5, 0.9)}


def loss(params, hyper, batch):
    x = params["embed"][batch["tokens"]]
    for matrix, scale in zip(params["up"], params["norm"], strict=True):
        x = x + jnp.tanh((x * scale[None, :]) @ matrix)
    return jnp.mean((x - batch["wanted"]) ** 2)


def batch_of(step):
    """Token 4 never occurs: its row of the embedding has no gradient."""
    random = np.random.default_rng(step)
    wanted = random.normal(size=(6, 4)).astype(np.float32)
    return {"tokens": random.integers(0, 4, 6), "wanted": wanted}


def training(optimizer=ADAMW, **options):
    """A problem of AdamW with a learned update, the tunable, and the state that it starts from."""
    random = np.random.default_rng(0)
    dtype = jnp.zeros(()).dtype
    params = {key: jnp.asarray(random.normal(size=size), dtype) for key, size in SHAPES.items()}
    spec = schema.LearnedUpdate(**SMALL | options)
    tunable = build(spec, Setting(NAMES, (), STEPS, params, seed=3))

    def hyper_at(eta, step):
        base = jax.tree.map(lambda p: jnp.full((1,) * p.ndim, 0.05, dtype), params)
        hyper = Hyper(base, jnp.ones(1), jnp.ones(1))
        return hyper if eta is None else tunable.apply(eta, step, hyper)

    built = optimizers.build(optimizer, NAMES, learned=tunable.form)
    problem = Problem(loss, built.update, lambda params, batch: loss(params, None, batch), hyper_at)
    return problem, tunable, State(params, built.init(params))


def some_eta(tunable):
    start = np.asarray(tunable.initial())
    return jnp.asarray(start + 0.5 * np.random.default_rng(1).normal(size=start.shape))


@pytest.mark.parametrize(
    "options",
    [{"per": "kind"}, {"per": ("up", "embed"), "step_size": "kept"}],
    ids=["learned size", "kept size"],
)
def test_hypergradients_equal_central_differences_and_each_other(options, float64):
    problem, tunable, state = training(**options)
    eta = some_eta(tunable)

    def estimate(eta, estimator):
        return hypergradient(
            problem, eta, state, batch_of, [batch_of(99)], steps=STEPS, estimator=estimator
        )

    found = np.asarray(estimate(eta, MixFlow(segment=2)).gradient)
    assert found.shape == eta.shape and np.all(np.any(found, axis=1))
    for direction in np.random.default_rng(2).normal(size=(2, *eta.shape)):
        sides = [
            float(estimate(eta + sign * 1e-5 * direction, MixFlow(segment=2)).value)
            for sign in (1, -1)
        ]
        assert np.vdot(found, direction) == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-5)
    for other in (Reverse(segment=2), Forward(segment=2)):
        np.testing.assert_allclose(estimate(eta, other).gradient, found, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("step_size", ["learned", "kept"])
@pytest.mark.parametrize("optimizer", [ADAMW, schema.Muon(0.05), schema.Adafactor(0.05)])
def test_the_training_begins_as_it_is_bit_for_bit(optimizer, step_size):
    problem, tunable, state = training(optimizer, step_size=step_size)
    plain = dataclasses.replace(problem, update=optimizers.build(optimizer, NAMES).update)
    without = State(state.params, optimizers.build(optimizer, NAMES).init(state.params))
    ends = [
        train(each, tunable.initial(), jax.tree.map(jnp.copy, begin), batch_of, steps=STEPS)[0]
        for each, begin in ((problem, state), (plain, without))
    ]
    jax.tree.map(np.testing.assert_array_equal, ends[0].params, ends[1].params)


def test_second_derivatives_are_finite_where_tensors_are_zero():
    problem, tunable, state = training()
    params = {**state.params, "up": jnp.zeros_like(state.params["up"])}
    grads = {**jax.tree.map(jnp.ones_like, params), "embed": jnp.zeros(SHAPES["embed"])}
    hyper = problem.hyper_at(some_eta(tunable).astype(jnp.float32), jnp.int32(0))

    def moved(grads, params):
        after, _ = problem.update(grads, state.opt_state, params, hyper)
        return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(after))

    ones = jax.tree.map(jnp.ones_like, (grads, params))
    found = jax.jvp(jax.grad(moved, argnums=(0, 1)), (grads, params), ones)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
