"""Populations against their members one by one; this file runs itself on several devices."""

import os
import subprocess
import sys
from dataclasses import fields, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from metatune.hypergrad import (
    EstimatorError,
    Forward,
    ForwardGradient,
    Member,
    MixFlow,
    Problem,
    Reverse,
    State,
    hypergradient,
    hypergradients,
)
from metatune.hypergrad.population import signal
from metatune.hypergrad.sharding import mesh_for
from metatune.hypergrad.stacking import member, stacked

STARTS = (4, 0, 6)
STEPS, WINDOWS = 5, 4
ADAM = optax.scale_by_adam(eps_root=1e-10)
OUTER = [np.random.default_rng(9 + i).normal(size=(6, 3)) for i in range(2)]
ETA = {"rates": np.linspace(-3.0, -2.0, WINDOWS), "weight": np.array([0.3, -0.2])}


def errors(params, x):
    return jnp.tanh(x @ params["w"] + params["b"]) - x[:, 0]


def loss(params, hyper, batch):
    weights = jnp.exp(hyper["weight"])[batch["kind"]]
    return jnp.mean(weights * errors(params, batch["x"]) ** 2)


def update(grads, opt_state, params, hyper):
    """Adam, and the running average that is evaluated."""
    adam, average = opt_state
    updates, adam = ADAM.update(grads, adam)
    params = jax.tree.map(lambda p, u: p - hyper["rate"] * u, params, updates)
    return params, (adam, jax.tree.map(lambda a, p: 0.5 * (a + p), average, params))


def hyper_at(eta, step):
    """Twelve steps in four windows: members of other ages are in other windows."""
    return {"rate": jnp.exp(eta["rates"][step // 3]), "weight": eta["weight"]}


def start(eta, state):
    """Moves one parameter; the average begins with it."""
    params = {**state.params, "b": state.params["b"] + eta["weight"][:1]}
    return State(params, (ADAM.init(params), params))


PROBLEM = Problem(
    loss,
    update,
    lambda params, x: jnp.mean(errors(params, x) ** 2),
    hyper_at,
    evaluated=lambda params, opt_state: opt_state[1],
    micro_batches=2,
    start=start,
)


def of(number: int) -> Member:
    """A training with a start, data and directions of its own."""

    def begin() -> State:
        drawn = np.random.default_rng(number).normal(size=4)
        params = jax.tree.map(jnp.asarray, {"w": drawn[:3], "b": drawn[3:]})
        return State(params, (ADAM.init(params), params))

    def batches(step):
        rng = np.random.default_rng((number, step))
        return {"x": rng.normal(size=(6, 3)), "kind": rng.integers(0, 2, 6)}

    return Member(begin, batches, STARTS[number], jax.random.key(number))


MEMBERS = [of(number) for number in range(len(STARTS))]
TWO = MEMBERS[:2]
POINTS = {"steps": STEPS, "window": 4, "points": {3: 0.25, 5: 0.75}}


def alone(member, estimator, **options):
    eta = jax.tree.map(jnp.asarray, ETA)
    return hypergradient(
        PROBLEM,
        eta,
        member.begin(),
        member.batches,
        OUTER,
        start=member.start,
        estimator=estimator,
        key=member.key,
        **{**POINTS, **options},
    )


def together(members=MEMBERS, problem=PROBLEM, **options):
    eta = jax.tree.map(jnp.asarray, ETA)
    return hypergradients(problem, eta, members, OUTER, **{**POINTS, **options})


def rows(trees) -> np.ndarray:
    return np.stack([np.asarray(ravel_pytree(tree)[0]) for tree in trees])


def of_all(tree) -> np.ndarray:
    return np.asarray(jax.vmap(lambda tree: ravel_pytree(tree)[0])(tree))


@pytest.mark.parametrize(
    "estimator", [MixFlow(2), Reverse(2), Forward(3)], ids=lambda it: type(it).__name__
)
def test_at_once_they_are_what_each_is_alone(float64, estimator):
    """Of other ages, in micro-batches, with a window, several points, and what is evaluated."""
    # In the last two steps all coordinates of forward mode act from the first one, or never.
    few = {"window": 2, "points": {5: 1.0}} if isinstance(estimator, Forward) else {}
    each = [alone(member, estimator, **few) for member in MEMBERS]
    found = together(estimator=estimator, **few)
    gradients = rows(single.gradient for single in each)
    np.testing.assert_allclose(of_all(found.diagnostics.members), gradients, rtol=1e-10)
    np.testing.assert_allclose(rows([found.gradient])[0], gradients.mean(0), rtol=1e-10)
    errors = rows([found.diagnostics.standard_errors])[0]
    np.testing.assert_allclose(errors, gradients.std(0, ddof=1) / len(each) ** 0.5, rtol=1e-9)
    np.testing.assert_allclose(of_all(found.state), rows(e.state for e in each), rtol=1e-10)
    values = [float(single.value) for single in each]
    assert float(found.value) == pytest.approx(np.mean(values), rel=1e-12)
    losses = np.mean([single.diagnostics.losses for single in each], axis=0)
    np.testing.assert_allclose(found.diagnostics.losses, losses, rtol=1e-12)


def test_one_by_one_they_are_too_and_have_directions_of_their_own(float64):
    estimator = ForwardGradient(3, segment=4)
    control = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.1), ETA)
    each = [alone(member, estimator, control=control) for member in TWO]
    told = []
    found = together(TWO, estimator=estimator, vmap=False, control=control, listener=told.append)
    np.testing.assert_array_equal(
        of_all(found.diagnostics.members), rows(single.gradient for single in each)
    )
    np.testing.assert_array_equal(of_all(found.state), rows(single.state for single in each))
    controls = rows(single.diagnostics.control for single in each)
    np.testing.assert_allclose(rows([found.diagnostics.control])[0], controls.mean(0), rtol=1e-14)
    assert told[-1].step == told[-1].steps == 2 * STEPS
    assert [heard.step for heard in told] == sorted(heard.step for heard in told)


def test_other_ages_compile_nothing_anew(float64):
    traces = []

    def counted(params, hyper, batch):
        traces.append(1)
        return loss(params, hyper, batch)

    problem = replace(PROBLEM, loss=counted)
    found = together(problem=problem, estimator=MixFlow(2))
    before = len(traces)
    assert before > 0
    older = [
        each._replace(begin=partial(member, found.state, number), start=(each.start + 5) % 8)
        for number, each in enumerate(MEMBERS)
    ]
    together(older, problem, estimator=MixFlow(2))
    assert len(traces) == before


def test_no_part_of_a_problem_is_left_out():
    """A new one has to be stacked too, or members would train without it."""
    problem = replace(PROBLEM, whole=lambda mean: mean)
    whole = stacked(problem, jnp.zeros(2, jnp.int32))
    parts = {part.name for part in fields(Problem)} - {"trainings"}
    for name in parts:
        assert (getattr(whole, name) is None) == (getattr(problem, name) is None)
    assert all(getattr(problem, name) is not None for name in parts)
    assert (problem.trainings, whole.trainings) == (None, 2)


def test_what_makes_no_population_is_refused():
    with pytest.raises(ValueError, match="a population of 1: must have two members or more"):
        together(MEMBERS[:1], estimator=MixFlow(2))
    with pytest.raises(EstimatorError, match="one after the other, vmap=False"):
        together(estimator=ForwardGradient(2))


def test_signal_is_the_mean_over_its_standard_error():
    gradients = np.array([[1.0, 5.0, 0.0, 2.0], [3.0, 5.0, 0.0, -2.0]])
    np.testing.assert_array_equal(signal(gradients), [2.0, np.inf, 0.0])


def test_members_are_spread_over_devices():
    """The same hypergradients on two devices as on one; states stay where they are."""
    assert mesh_for(2, ()) is None  # here
    run = subprocess.run(
        [sys.executable, __file__],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "JAX_NUM_CPU_DEVICES": "2",
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    got = np.array([list(map(float, line.split())) for line in run.stdout.splitlines()])
    found = together(TWO, estimator=MixFlow(2))
    np.testing.assert_allclose(got, of_all(found.diagnostics.members), rtol=1e-4, atol=1e-7)


def shrinking(factor):
    """A parabola whose rate is `factor` times that of η; a size of its own."""
    return Problem(
        loss=lambda theta, rate, x: jnp.sum((theta - x) ** 2) / 2,
        update=lambda g, state, theta, rate: (theta - rate * g, state),
        objective=lambda theta, x: jnp.sum((theta - x) ** 2) / 2,
        hyper_at=lambda eta, step: factor * jnp.exp(eta),
    )


def test_members_may_have_problems_of_their_own(float64):
    """Of other shapes and rates, in one η: by hand, `F = n (1 - f e^η)^(2T) / 2` of n ones."""
    eta, steps = jnp.log(0.1), 3

    def one(size, problem):
        return Member(lambda: State(jnp.ones(size), ()), lambda step: jnp.zeros(1), problem=problem)

    members = [one(1, None), one(4, shrinking(0.5))]
    found = hypergradients(
        shrinking(1.0),
        eta,
        members,
        [jnp.zeros(1)],
        steps=steps,
        estimator=MixFlow(),
        vmap=False,
        states=False,
    )
    values, slopes = [], []
    for size, factor in ((1, 1.0), (4, 0.5)):
        left = 1 - factor * 0.1
        values.append(size * left ** (2 * steps) / 2)
        slopes.append(-size * steps * left ** (2 * steps - 1) * factor * 0.1)
    assert found.diagnostics.values is not None
    np.testing.assert_allclose(found.diagnostics.values, values, rtol=1e-12)
    np.testing.assert_allclose(found.diagnostics.members, slopes, rtol=1e-12)
    assert float(found.gradient) == pytest.approx(np.mean(slopes), rel=1e-12)
    assert float(found.value) == pytest.approx(np.mean(values), rel=1e-12)
    for vmap in (True, False):
        with pytest.raises(ValueError, match="vmap=False, states=False"):
            hypergradients(
                shrinking(1.0),
                eta,
                members,
                [jnp.zeros(1)],
                steps=steps,
                estimator=MixFlow(),
                vmap=vmap,
            )


if __name__ == "__main__":
    assert len(jax.devices()) == 2
    found = together(TWO, estimator=MixFlow(2))
    for leaf in jax.tree.leaves(found.state):
        assert len(leaf.sharding.device_set) == 2
        assert {shard.data.shape[0] for shard in leaf.addressable_shards} == {1}
    for row in of_all(found.diagnostics.members):
        print(*row.tolist())
