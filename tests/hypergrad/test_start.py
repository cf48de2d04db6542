"""A start that η moves: every estimator against a closed form and whole trainings."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from estimators import made
from jax.flatten_util import ravel_pytree

from metatune.hypergrad import (
    Checkpoints,
    Forward,
    MixFlow,
    Problem,
    State,
    hypergradient,
    train,
)

STEPS, RATE, PENALTY, PULL = 11, 0.1, 0.3, 0.07
RNG = np.random.default_rng(0)
X, Y, HELD_X, HELD_Y = (RNG.normal(size=s) for s in ((9, 3), (9,), (2, 6, 3), (2, 6)))
GIVEN = np.array([0.5, -1.0, 0.3])
ETA = {"offset": np.array([0.2, 0.1, -0.4]), "log_rates": np.log([RATE, RATE])}

# The meta-parameters are 5, of which those of the first window and the start act at 0.
ESTIMATORS = made(size=5, segment=4, leave_out=("whole basis",))
TRACES = []


def init(params):
    """An optimizer state that holds a copy of the parameters, as that of schedule-free training."""
    return {"slow": params, "count": jnp.zeros((), jnp.int32)}


def _loss(params, hyper, batch):
    TRACES.append(1)
    errors = batch["x"] @ params - batch["y"]
    return 0.5 * jnp.mean(errors**2) + 0.5 * PENALTY * params @ params


def _update(grads, opt_state, params, hyper):
    slow = opt_state["slow"]
    after = params - hyper * grads + PULL * (slow - params)
    return after, {"slow": 0.9 * slow + 0.1 * params, "count": opt_state["count"] + 1}


def _start(eta, state):
    params = state.params + eta["offset"]
    return State(params, init(params))


PROBLEM = Problem(
    _loss,
    _update,
    lambda params, batch: 0.5 * jnp.mean((batch["x"] @ params - batch["y"]) ** 2),
    lambda eta, step: jnp.exp(eta["log_rates"][step // 6]),
    start=_start,
)


def given():
    return State(jnp.asarray(GIVEN), init(jnp.asarray(GIVEN)))


def found(estimator, eta=None, problem=PROBLEM, steps=STEPS, **options):
    return hypergradient(
        problem,
        jax.tree.map(jnp.asarray, ETA) if eta is None else eta,
        given(),
        lambda step: {"x": X, "y": Y},
        [{"x": HELD_X[i], "y": HELD_Y[i]} for i in range(2)],
        estimator=estimator,
        steps=steps,
        key=jax.random.key(0),
        **options,
    )


def closed_form(steps):
    """Value and derivative by the start, of the linear recursion of (θ, z), by hand."""
    hessian = X.T @ X / len(X) + PENALTY * np.eye(3)
    step = np.block(
        [
            [np.eye(3) * (1 - PULL) - RATE * hessian, PULL * np.eye(3)],
            [0.1 * np.eye(3), 0.9 * np.eye(3)],
        ]
    )
    shift = np.concatenate([RATE * X.T @ Y / len(X), np.zeros(3)])
    both = np.concatenate([np.eye(3), np.eye(3)])  # the start moves θ and its copy alike
    state = both @ (GIVEN + ETA["offset"])
    for _ in range(steps):
        state = step @ state + shift
    x, y = np.concatenate(HELD_X), np.concatenate(HELD_Y)
    errors = x @ state[:3] - y
    by_theta = x.T @ errors / len(x)
    return 0.5 * np.mean(errors**2), by_theta @ (np.linalg.matrix_power(step, steps) @ both)[:3]


def central_differences(steps=STEPS):
    flat, unflatten = ravel_pytree(jax.tree.map(jnp.asarray, ETA))

    def value(flat):
        state, _ = train(PROBLEM, unflatten(flat), given(), lambda t: {"x": X, "y": Y}, steps=steps)
        return 0.5 * np.mean((np.concatenate(HELD_X) @ state.params - np.concatenate(HELD_Y)) ** 2)

    rows = np.eye(len(flat)) * 1e-5
    return np.array([(value(flat + row) - value(flat - row)) / 2e-5 for row in rows])


def error(got, want):
    got, want = (np.asarray(ravel_pytree(tree)[0]) for tree in (got, want))
    return np.linalg.norm(got - want) / np.linalg.norm(want)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_closed_form_and_central_differences(float64, name):
    value, by_start = closed_form(STEPS)
    some: dict[str, Any] = (
        {"checkpoints": Checkpoints("recursive", slots=1)} if "recomputed" in name else {}
    )
    result = found(ESTIMATORS[name], **some)
    assert float(result.value) == pytest.approx(value, rel=1e-12)
    assert error(result.gradient["offset"], by_start) < 1e-8
    assert error(result.gradient, central_differences()) < 1e-5
    assert int(result.state.opt_state["count"]) == STEPS


@pytest.mark.parametrize(
    "estimator", [MixFlow(segment=4), Forward(segment=4)], ids=["mixflow", "forward"]
)
def test_under_jit_and_over_any_horizon(float64, estimator):
    eta = jax.tree.map(jnp.asarray, ETA)
    compiled = jax.jit(lambda eta: found(estimator, eta).gradient)(eta)
    plain = found(estimator)
    assert error(compiled, plain.gradient) < 1e-12
    before = len(TRACES)
    moved = found(estimator, {**eta, "offset": eta["offset"] + 1.0}, steps=8)
    assert error(moved.gradient["offset"], plain.gradient["offset"]) > 1e-2
    assert error(found(estimator, steps=9).gradient["offset"], closed_form(9)[1]) < 1e-8
    assert len(TRACES) == before


@pytest.mark.parametrize(
    "estimator",
    [MixFlow(4), Forward(4)],
    ids=lambda estimator: type(estimator).__name__,
)
def test_a_window_that_begins_later_leaves_the_start_out(float64, estimator):
    truncated = found(estimator, window=4)
    assert error(truncated.state, found(MixFlow(4)).state) < 1e-12  # it begins there all the same
    np.testing.assert_array_less(np.abs(truncated.gradient["offset"]), 1e-15)
    assert abs(truncated.gradient["log_rates"][1]) > 1e-6


def test_a_training_that_is_under_way_begins_where_it_is(float64):
    eta = jax.tree.map(jnp.asarray, ETA)
    half, _ = train(PROBLEM, eta, given(), lambda t: {"x": X, "y": Y}, steps=5)
    whole, _ = train(PROBLEM, eta, half, lambda t: {"x": X, "y": Y}, steps=6, start=5)
    assert error(whole, found(MixFlow(4)).state) < 1e-12


def test_the_given_state_is_left_untouched(float64):
    """Also where the start hands its arrays on, whose memory the steps take."""
    problem, state = replace(PROBLEM, start=lambda eta, state: state), given()
    eta = jax.tree.map(jnp.asarray, ETA)
    train(problem, eta, state, lambda t: {"x": X, "y": Y}, steps=3)
    for estimator in (MixFlow(4), Forward(4)):
        hypergradient(
            problem, eta, state, lambda t: {"x": X, "y": Y}, [{"x": HELD_X[0], "y": HELD_Y[0]}],
            steps=3, estimator=estimator, key=jax.random.key(0),
        )  # fmt: skip
    np.testing.assert_array_equal(state.params, GIVEN)
    np.testing.assert_array_equal(state.opt_state["slow"], GIVEN)
