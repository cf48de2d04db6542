"""The tuned average of the parameters, against the recursion by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metatune.hypergrad import Forward, MixFlow, Problem, Reverse, State, hypergradient
from metatune.recipe import schema
from metatune.recipe.faults import RecipeError
from metatune.tunables import Hyper
from metatune.tunables.averaging import TunableAveraging, beside, build
from metatune.tunables.hyper import Setting

STEPS, RATE, DECAY, FIRST = 12, 0.3, 0.8, 4
GIVEN = np.array([0.7, -0.4, 0.2])
TARGET = np.array([0.1, 0.5, -0.3])
TUNABLE = TunableAveraging(DECAY, FIRST, 2, STEPS)


def batch(step):
    return np.random.default_rng(step).normal(size=3)


def problem():
    """L = |θ - x|² / 2 by plain gradient steps, F = |θ̄ - target|²."""

    def update(grads, state, params, hyper):
        del hyper
        return jax.tree.map(lambda p, g: p - RATE * g, params, grads), state

    def hyper_at(eta, step):
        return TUNABLE.apply(eta, step, Hyper(None, jnp.ones(1), jnp.ones(1)))

    init, averaged, evaluated = beside(lambda params: (), update)
    params = {"w": jnp.asarray(GIVEN)}
    return (
        Problem(
            lambda p, hyper, x: jnp.sum((p["w"] - x) ** 2) / 2,
            averaged,
            lambda p, target: jnp.sum((p["w"] - target) ** 2),
            hyper_at,
            evaluated=evaluated,
        ),
        State(params, init(params)),
    )


def by_hand(eta):
    """θ, θ̄ and dF/dη: θ is linear in the batches, and θ̄ moves by hand with its decay."""
    theta, average = GIVEN.copy(), GIVEN.copy()
    slopes = np.zeros((2, 3))  # dθ̄/dη, which θ has no part in
    for step in range(STEPS):
        theta = theta - RATE * (theta - batch(step))
        if step < FIRST:
            average = theta
            continue
        window = (step - FIRST) * 2 // (STEPS - FIRST)
        odds = DECAY / (1 - DECAY) * np.exp(eta[window])
        decay = odds / (1 + odds)
        slopes *= decay
        slopes[window] += decay * (1 - decay) * (average - theta)
        average = decay * average + (1 - decay) * theta
    return theta, average, slopes @ (2 * (average - TARGET))


@pytest.mark.parametrize("estimator", [MixFlow(segment=5), Reverse(segment=5), Forward(segment=5)])
def test_the_hypergradient_is_that_by_hand_and_that_of_central_differences(float64, estimator):
    training, state = problem()

    def found(eta):
        return hypergradient(
            training,
            jnp.asarray(eta),
            state,
            batch,
            [jnp.asarray(TARGET)],
            steps=STEPS,
            estimator=estimator,
        )

    eta = np.array([0.3, -0.6])
    result, (theta, average, want) = found(eta), by_hand(eta)
    np.testing.assert_allclose(result.state.params["w"], theta, rtol=1e-12)
    np.testing.assert_allclose(result.state.opt_state.average["w"], average, rtol=1e-12)
    assert float(result.value) == pytest.approx(np.sum((average - TARGET) ** 2), rel=1e-12)
    np.testing.assert_allclose(result.gradient, want, rtol=1e-10)
    for index, size in enumerate(np.eye(2) * 1e-5):
        slope = (float(found(eta + size).value) - float(found(eta - size).value)) / 2e-5
        assert float(result.gradient[index]) == pytest.approx(slope, rel=1e-5)


def test_at_zero_the_decay_is_the_recipe_s_own():
    own = TunableAveraging(0.97, 3, 2, 9)
    hyper = Hyper(None, jnp.ones(1), jnp.ones(1))
    decays = [own.apply(own.initial(), jnp.int32(t), hyper).averaging for t in range(9)]
    assert decays == [0.0] * 3 + [float(np.float32(0.97))] * 6


@pytest.mark.parametrize(("start", "first"), [(0.0, 1), (0.25, 3), (0.3, 4)])
def test_it_begins_at_a_fraction_and_not_before_the_first_update(start, first):
    spec = schema.AveragingSpec(start=start, windows=2)
    assert build(spec, Setting(None, (), 12)).first == first


def test_an_average_of_nothing_is_refused():
    with pytest.raises(RecipeError, match="tune.averaging.start = 0.9: leaves 0 of 4 updates"):
        build(schema.AveragingSpec(start=0.9), Setting(None, (), 4))
