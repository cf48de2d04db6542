"""The growth of tangents as forward mode tells it: against the recursion written out by hand."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metatune.hypergrad import (
    Forward,
    ForwardGradient,
    Member,
    Problem,
    State,
    hypergradient,
    hypergradients,
)
from metatune.hypergrad.forward.directions import draw

STEPS, SIZE, MOMENTUM, WINDOWS = 12, 3, 0.5, 4
SADDLE = np.diag([1.0, -0.5, -1.5]) + 0.2
"""Curvature of the loss: descent runs away along some of its axes."""
RATES = 0.2 + 0.1 * np.random.default_rng(0).random(WINDOWS)
START = np.random.default_rng(1).normal(size=SIZE)

pytestmark = pytest.mark.usefixtures("float64")


def update(grads, momentum, params, rate):
    momentum = MOMENTUM * momentum + grads
    return params - rate * momentum, momentum


PROBLEM = Problem(
    lambda params, hyper, batch: 0.5 * params @ jnp.asarray(SADDLE) @ params,
    update,
    lambda params, batch: jnp.sum(params),
    lambda eta, step: eta[step * WINDOWS // STEPS],
)


def by(estimator, **options):
    return hypergradient(
        **{
            "problem": PROBLEM,
            "eta": jnp.asarray(RATES),
            "state": State(jnp.asarray(START), jnp.zeros(SIZE)),
            "batches": lambda step: jnp.zeros(()),
            "outer_batches": [jnp.zeros(())],
            "steps": STEPS,
            "estimator": estimator,
            "key": jax.random.key(3),
            **options,
        }
    )


def growth_of(found):
    growth = found.diagnostics.growth
    assert growth is not None and growth.tangents
    return growth


def tangents():
    """Z of parameters and momentum before each step and after the last, [steps + 1, 2, size, N]."""
    params, momentum = START, np.zeros(SIZE)
    of_params, of_momentum = np.zeros((SIZE, WINDOWS)), np.zeros((SIZE, WINDOWS))
    found = [(of_params, of_momentum)]
    for step in range(STEPS):
        window = step * WINDOWS // STEPS
        of_momentum = MOMENTUM * of_momentum + SADDLE @ of_params
        momentum = MOMENTUM * momentum + SADDLE @ params
        of_params = of_params - RATES[window] * of_momentum
        of_params[:, window] -= momentum
        params = params - RATES[window] * momentum
        found.append((of_params, of_momentum))
    return np.array(found)


def frobenius(derivatives):
    return np.sqrt(np.sum(derivatives**2, axis=(-2, -1)))


@pytest.mark.parametrize(
    ("estimator", "steps"),
    [
        (Forward(1), range(STEPS + 1)),
        (Forward(2), [0, 2, 3, 5, 6, 8, 9, 11, 12]),  # cut where a window begins
        (Forward(64), [0, 3, 6, 9, 12]),
        (Forward(2, chunk=2), [0, 2, 9, 11, 12]),  # what both chunks have
        (ForwardGradient(WINDOWS, 5, "orthogonal"), [0, 5, 10, 12]),
        (ForwardGradient(WINDOWS, 5, "orthogonal", chunk=3), [0, 5, 10, 12]),
    ],
    ids=str,
)
def test_norms_are_those_of_the_recursion(estimator, steps):
    """Of all coordinates together; those that haven't begun have none, there and here."""
    growth, norms = growth_of(by(estimator)), frobenius(tangents())
    assert growth.steps.tolist() == list(steps)
    np.testing.assert_allclose(growth.params, norms[growth.steps, 0], rtol=1e-12)
    np.testing.assert_allclose(growth.opt_state, norms[growth.steps, 1], rtol=1e-12)
    np.testing.assert_array_equal(growth.damped, 0)
    logs = np.log(norms[growth.steps[1:], 0])
    np.testing.assert_allclose(growth.exponents[1:], np.diff(logs) / np.diff(growth.steps)[1:])
    assert growth.exponents[-1] > 0  # on a saddle they grow


def test_along_random_directions_it_is_the_root_of_the_mean_square():
    growth = growth_of(by(ForwardGradient(3, 6, "gaussian")))
    directions = np.asarray(draw(jax.random.key(3), jnp.asarray(RATES), 3, "gaussian"))
    along = np.einsum("tpsn,bn->tpbs", tangents(), directions)
    norms = np.sqrt(np.mean(np.sum(along**2, axis=-1), axis=-1))
    np.testing.assert_allclose(growth.params, norms[growth.steps, 0], rtol=1e-12)
    np.testing.assert_allclose(growth.opt_state, norms[growth.steps, 1], rtol=1e-12)


def test_a_start_that_is_moved_has_tangents_before_the_first_step():
    def start(eta, state):
        return State(eta[0] * state.params, state.opt_state)

    growth = growth_of(by(Forward(4), problem=replace(PROBLEM, start=start)))
    assert float(growth.params[0]) == pytest.approx(np.linalg.norm(START), rel=1e-12)
    assert float(growth.opt_state[0]) == 0


def test_a_training_that_goes_on_counts_its_own_steps():
    growth = growth_of(by(Forward(4), start=3, steps=6))
    assert growth.steps.tolist() == [3, 6, 9]
    window = growth_of(by(Forward(4), window=6))  # of whose first steps nothing is differentiated
    assert window.steps.tolist() == [0, 4, 6, 9, 12]
    assert (np.asarray(window.params) > 0).tolist() == [False, False, False, True, True]


def test_members_of_other_ages_meet_where_all_have_a_boundary():
    """A member is cut where its own windows begin."""
    members = [
        Member(lambda: State(jnp.asarray(START), jnp.zeros(SIZE)), lambda step: jnp.zeros(()), at)
        for at in (0, 1)
    ]
    found = hypergradients(
        PROBLEM,
        jnp.asarray(RATES),
        members,
        [jnp.zeros(())],
        steps=6,
        estimator=Forward(4),
        vmap=False,
    )
    growth = growth_of(found)
    assert growth.steps.tolist() == [0, 6]  # of 0, 3, 6 and 0, 2, 5, 6
    for index, each in enumerate(members):
        alone = growth_of(by(Forward(4), start=each.start, steps=6))
        np.testing.assert_allclose(growth.params[:, index], alone.params[np.array([0, -1])])
