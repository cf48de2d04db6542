"""Objectives that aren't linear in what held-out batches add: of all batches together."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from estimators import made
from jax.flatten_util import ravel_pytree

from metatune.hypergrad import (
    Member,
    MixFlow,
    Problem,
    Reverse,
    State,
    hypergradient,
    hypergradients,
    measured,
)

STEPS = 5
RANDOM = np.random.default_rng(0)
X, HELD = RANDOM.normal(size=(STEPS, 4, 3)), RANDOM.normal(size=(6, 4, 3))
ETA = {"log_rate": np.log([0.1, 0.2]), "decay": np.array(0.3)}
POINTS = {2: 0.4, 5: 0.6}


def parts(params, batch):
    """Two numbers that are means over the examples."""
    found = batch @ params - 1
    return {"square": jnp.mean(found**2), "fourth": jnp.mean(found**4)}


def together(mean):
    return jnp.log(jnp.exp(mean["square"]) + 3 * jnp.exp(0.1 * mean["fourth"]))


PROBLEM = Problem(
    lambda params, hyper, x: jnp.mean((x @ params) ** 2) + hyper["decay"] * jnp.sum(params**2),
    lambda grads, momentum, params, hyper: (
        params - hyper["rate"] * (0.5 * momentum + grads),
        0.5 * momentum + grads,
    ),
    parts,
    lambda eta, step: {"rate": jnp.exp(eta["log_rate"][step // 3]), "decay": eta["decay"]},
    # The objective is of an average that the optimizer keeps, too.
    evaluated=lambda params, momentum: params + 0.1 * momentum,
    whole=together,
)
OF_ONE = dataclasses.replace(
    PROBLEM, objective=lambda params, batch: together(parts(params, batch)), whole=None
)
ESTIMATORS = made(size=3, segment=2, leave_out=("chunks", "recomputed"))


def start():
    return State(jnp.array([0.5, -1.0, 0.3]), jnp.zeros(3))


def estimate(problem, estimator, batches):
    return hypergradient(
        problem,
        jax.tree.map(jnp.asarray, ETA),
        start(),
        lambda step: X[step],
        batches,
        steps=STEPS,
        points=POINTS,
        estimator=estimator,
        key=jax.random.key(0),
    )


@pytest.mark.parametrize("count", [1, 3], ids=["one batch", "three batches"])
@pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS.keys())
def test_batches_add_up_to_the_objective_of_all(float64, estimator, count):
    batches = list(HELD.reshape(count, -1, 3))
    found = estimate(PROBLEM, estimator, batches)
    expected = estimate(OF_ONE, Reverse(segment=2), [HELD.reshape(-1, 3)])
    assert float(found.value) == pytest.approx(float(expected.value), rel=1e-12)
    gradient, wanted = (ravel_pytree(each.gradient)[0] for each in (found, expected))
    np.testing.assert_allclose(gradient, wanted, atol=1e-8)
    value = measured(PROBLEM, jnp.array([0.5, -1.0, 0.3]), batches)
    assert value == pytest.approx(
        measured(OF_ONE, jnp.array([0.5, -1.0, 0.3]), [HELD.reshape(-1, 3)]), rel=1e-12
    )


@pytest.mark.parametrize("vmap", [True, False])
def test_a_population_has_the_mean_of_its_members_objectives(float64, vmap):
    eta = jax.tree.map(jnp.asarray, ETA)
    members = [Member(start, lambda step, n=n: X[step] * (1 + n), 0, None) for n in range(2)]
    options = {"steps": STEPS, "points": POINTS, "estimator": MixFlow(segment=2), "vmap": vmap}
    found = hypergradients(PROBLEM, eta, members, list(HELD), **options)
    expected = hypergradients(OF_ONE, eta, members, [HELD.reshape(-1, 3)], **options)
    assert float(found.value) == pytest.approx(float(expected.value), rel=1e-12)
    gradient, wanted = (ravel_pytree(each.gradient)[0] for each in (found, expected))
    np.testing.assert_allclose(gradient, wanted, atol=1e-8)
