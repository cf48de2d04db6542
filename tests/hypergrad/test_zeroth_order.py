"""Zeroth order: objectives without a derivative, its bias, and what it takes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metatune.hypergrad import MixFlow, Problem, State, ZerothOrder, hypergradient

X = np.random.default_rng(0).normal(size=(400, 2))
LABELS = X @ np.array([1.0, -2.0]) > 0.3


def train_to(objective, eta, estimator, listener=None):
    """Descent on a quadratic whose minimum is η: θ_T = (1 - 0.5⁶) η from zero."""
    problem = Problem(
        loss=lambda params, hyper, batch: 0.5 * jnp.sum((params - hyper) ** 2),
        update=lambda grads, opt_state, params, hyper: (params - 0.5 * grads, opt_state),
        objective=objective,
        hyper_at=lambda eta, step: eta,
    )
    return hypergradient(
        problem,
        eta,
        State(jnp.zeros(3), ()),
        lambda step: np.zeros(1),
        [np.arange(0, 200), np.arange(200, 400)],
        steps=6,
        estimator=estimator,
        key=jax.random.key(0),
        listener=listener,
    )


def accuracy(params, rows):
    """A step function of the parameters."""
    said = jnp.asarray(X)[rows] @ params[:2] > params[2]
    return jnp.mean(said == jnp.asarray(LABELS)[rows])


def test_an_objective_without_a_derivative(float64):
    """A derivative is nothing wherever there is one; differences across its steps lead uphill."""
    eta = jnp.array([0.5, -0.2, -0.3])
    nothing = train_to(accuracy, eta, MixFlow())
    assert not np.any(nothing.gradient)
    found = train_to(accuracy, eta, ZerothOrder(3, step=0.2, distribution="orthogonal"))
    assert float(found.value) == pytest.approx(float(accuracy(found.state.params, np.arange(400))))
    assert float(found.value) == pytest.approx(float(nothing.value))
    uphill = train_to(accuracy, eta + found.gradient, ZerothOrder(1))
    assert float(uphill.value) > float(found.value) + 0.05


def cubic(params, rows):
    return jnp.sum(params**3)


def test_the_bias_falls_with_the_square_of_the_step(float64):
    """Of a cubic along an orthogonal direction of length √N; by hand: (μ²) v³ (1 - 0.5⁶)³."""
    eta = jnp.array([0.5, -0.2, -0.3])
    exact = train_to(cubic, eta, MixFlow()).gradient

    def error(step):
        estimator = ZerothOrder(3, step=step, distribution="orthogonal")
        return np.linalg.norm(train_to(cubic, eta, estimator).gradient - exact)

    assert error(0.1) / error(0.05) == pytest.approx(4, rel=1e-4)


def test_the_listener_hears_of_all_trainings(float64):
    heard = []
    train_to(cubic, jnp.ones(3), ZerothOrder(3, segment=4, chunk=2), heard.append)
    assert [(p.phase, p.step, p.steps) for p in heard] == [
        ("forward", step, 18) for step in (4, 6, 10, 12, 16, 18)
    ]
    assert all(np.isfinite(p.loss) for p in heard)
