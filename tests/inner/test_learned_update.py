"""Learned updates in trainings small enough for double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metatune.hypergrad import Forward, MixFlow, Problem, Reverse, State, hypergradient
from metatune.inner import optimizers
from metatune.inner.learned_update import corrected
from metatune.models import ParameterNames
from metatune.recipe import schema
from metatune.tunables import Hyper, Setting
from metatune.tunables.learned_update import build

STEPS = 3
# One leaf, of which one layer has networks and the other not: each more takes seconds to compile.
NAMES = {"up": ParameterNames(("layers.0.mlp.up.weight", "layers.1.mlp.up.weight"), True)}
SHAPES = {"up": (2, 3, 3)}
ADAMW = schema.AdamWSpec(learning_rate=0.05, clip_norm=0.5, weight_decay=0.1)
SMALL = {"hidden_size": 4, "decays": (0.5,)}


def loss(params, hyper, batch):
    x = batch["inputs"]
    for matrix in params["up"]:
        x = x + jnp.tanh(x @ matrix)
    return jnp.mean((x - batch["wanted"]) ** 2)


def batch_of(step):
    random = np.random.default_rng(step)
    dtype = jnp.zeros(()).dtype
    return {key: random.normal(size=(6, 3)).astype(dtype) for key in ("inputs", "wanted")}


def training(optimizer: schema.InnerOptimizerSpec = ADAMW, **options):
    """A problem of AdamW with a learned update, the tunable, and the state that it starts from."""
    random = np.random.default_rng(0)
    dtype = jnp.zeros(()).dtype
    params = {key: jnp.asarray(random.normal(size=size), dtype) for key, size in SHAPES.items()}
    spec = schema.LearnedUpdateSpec(**SMALL | options)
    tunable = build(spec, Setting(NAMES, (), STEPS, params, seed_key=jax.random.key(3)))

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


def test_hypergradients_equal_central_differences_and_each_other(float64):
    problem, tunable, state = training(per=(r"s\.0",), step_size="kept")
    eta = some_eta(tunable)

    def estimate(eta, estimator):
        return hypergradient(
            problem, eta, state, batch_of, [batch_of(99)], steps=STEPS, estimator=estimator
        )

    found = np.asarray(estimate(eta, MixFlow(segment=3)).gradient)
    assert found.shape == eta.shape and np.all(np.any(found, axis=1))
    for direction in np.random.default_rng(2).normal(size=(2, *eta.shape)):
        sides = [
            float(estimate(eta + sign * 1e-5 * direction, MixFlow(segment=3)).value)
            for sign in (1, -1)
        ]
        assert np.vdot(found, direction) == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-5)
    for other in (Reverse(segment=3), Forward(segment=3)):
        np.testing.assert_allclose(estimate(eta, other).gradient, found, rtol=1e-9, atol=1e-14)


def test_a_step_begins_as_it_is_bit_for_bit():
    _, tunable, state = training(step_size="kept")
    hyper = tunable.apply(tunable.initial(), jnp.int32(1), Hyper(None, jnp.ones(1), jnp.ones(1)))
    same = corrected(optax.identity(), NAMES, tunable.form, hyper.learned_update)
    # By single operations: in one program with others they may be rounded in another order.
    found, _ = same.update(state.params, same.init(state.params), state.params)
    jax.tree.map(np.testing.assert_array_equal, found, state.params)


SPECS = [
    kind(0.05) for kind in (schema.SGDSpec, schema.LionSpec, schema.MuonSpec, schema.AdafactorSpec)
]


@pytest.mark.parametrize("optimizer", [ADAMW, *SPECS], ids=lambda spec: spec.kind)
def test_every_step_along_a_direction_can_be_corrected(optimizer):
    problem, tunable, state = training(optimizer)
    hyper = problem.hyper_at(tunable.initial(), jnp.int32(0))
    after = jax.eval_shape(problem.update, state.params, state.opt_state, state.params, hyper)
    assert jax.tree.structure(after) == jax.tree.structure(tuple(state))
    for new, old in zip(jax.tree.leaves(after), jax.tree.leaves(state), strict=True):
        assert (new.shape, new.dtype) == (old.shape, old.dtype)


def test_an_average_takes_none():
    with pytest.raises(ValueError, match="schedule_free_adamw takes no learned update"):
        training(schema.ScheduleFreeAdamWSpec(0.05))


@pytest.mark.parametrize("scale", [0.0, 1e-9], ids=["zeros", "tiny"])
def test_second_derivatives_are_finite_where_gradients_vanish(scale):
    _, tunable, state = training(step_size="kept")
    eta = some_eta(tunable).astype(jnp.float32)
    hyper = tunable.apply(eta, jnp.int32(1), Hyper(None, jnp.ones(1), jnp.ones(1)))
    tree = jax.tree.map(lambda leaf: leaf.at[0].multiply(scale), state.params)
    moving = corrected(optax.identity(), NAMES, tunable.form, hyper.learned_update)

    def moved(grads, params):
        found, _ = moving.update(grads, moving.init(params), params)
        return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(found))

    ones = jax.tree.map(jnp.ones_like, (tree, tree))
    derivatives = jax.grad(moved, argnums=(0, 1))
    found = jax.jit(lambda *at: jax.jvp(derivatives, at, ones))(tree, tree)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
