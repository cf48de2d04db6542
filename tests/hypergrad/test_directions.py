"""Random directions: what is drawn, and how far the mean over them is from the gradient."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cells import cells

from metatune.hypergrad import (
    EstimatorError,
    ForwardGradient,
    Problem,
    State,
    ZerothOrder,
    hypergradient,
)

SIZE = 12  # meta-parameters
TARGET = np.random.default_rng(0).normal(size=(2, 3, 2))
DISTRIBUTIONS = ["rademacher", "gaussian", "orthogonal"]


class Quadratic(NamedTuple):
    """Three steps of descent to η, whose hypergradient is known by hand."""

    steps: int = 3
    rate: float = 0.3

    def problem(self):
        def loss(params, hyper, batch):
            return 0.5 * jnp.sum((params - hyper["a"]) ** 2) + jnp.sum(params[:1] * hyper["b"])

        def update(grads, opt_state, params, hyper):
            return params - self.rate * grads, opt_state

        def objective(params, batch):
            return jnp.sum(params * batch)

        return Problem(loss, update, objective, lambda eta, step: eta)

    def at(self, estimator, **options):
        return hypergradient(
            self.problem(),
            {"a": jnp.asarray(TARGET[1]), "b": jnp.zeros((3, 2))},
            State(jnp.zeros((3, 2)), ()),
            lambda step: np.zeros(1),
            [TARGET[0]],
            steps=self.steps,
            estimator=estimator,
            **options,
        )

    def gradient(self):
        """`θ_T = (1 - (1-r)^T)(a - B)`, where B is the sum of b over rows in the first row."""
        moved = (1 - (1 - self.rate) ** self.steps) * TARGET[0]
        by_b = -np.broadcast_to(moved[:1], (3, 2))
        return np.concatenate([moved.ravel(), by_b.ravel()])


def flat(gradient, draws=()):
    return np.concatenate([np.reshape(gradient[name], (*draws, -1)) for name in "ab"], axis=-1)


def estimates(estimator, draws):
    """Gradients and standard errors of independent draws, [draws, N] each."""

    def estimate(key):
        found = Quadratic().at(estimator, key=key)
        return found.gradient, found.diagnostics.standard_errors

    gradients, errors = jax.jit(jax.vmap(estimate))(jax.random.split(jax.random.key(7), draws))
    return flat(gradients, (draws,)), errors and flat(errors, (draws,))


@pytest.mark.parametrize("kind", [ForwardGradient, ZerothOrder])
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_the_mean_of_many_draws_is_the_gradient(float64, distribution, kind):
    """By 4 of its standard errors, those the draws themselves show."""
    found, _ = estimates(kind(4, distribution=distribution), draws=1000)
    errors = found.std(axis=0, ddof=1) / np.sqrt(len(found))
    assert np.all(np.abs(found.mean(axis=0) - Quadratic().gradient()) < 4 * errors)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_standard_errors_are_those_that_draws_show(float64, distribution):
    found, told = estimates(ForwardGradient(6, distribution=distribution), draws=2000)
    shown = found.std(axis=0, ddof=1)
    assert np.sqrt(np.mean(told**2, axis=0)) == pytest.approx(shown, rel=0.1)


COUNTS = {
    f"{name}, {n}": (name, n)
    for name in DISTRIBUTIONS
    for n in (1, 3, 6, 11, 48)
    if name[0] != "o" or n < SIZE
}
TELLING = {"rademacher, 3", "rademacher, 48", "gaussian, 1", "gaussian, 11", "orthogonal, 3"}


@pytest.mark.parametrize(("distribution", "count"), cells(COUNTS, COUNTS.keys() - TELLING))
def test_the_relative_error_follows_from_the_number_of_directions(float64, distribution, count):
    squared = {
        "rademacher": (SIZE - 1) / count,
        "gaussian": (SIZE + 1) / count,
        "orthogonal": SIZE / count - 1,
    }[distribution]
    exact = Quadratic().gradient()
    found, told = estimates(ForwardGradient(count, distribution=distribution), draws=1500)
    assert (told is None) == (count == 1)  # a single direction can't tell its error
    error = np.sqrt(np.mean(np.sum((found - exact) ** 2, axis=1)) / np.sum(exact**2))
    assert error == pytest.approx(np.sqrt(squared), rel=0.15)


def test_a_whole_orthogonal_basis_is_exact_and_knows_it(float64):
    found = Quadratic().at(ForwardGradient(SIZE, 2, "orthogonal"), key=jax.random.key(0))
    np.testing.assert_allclose(flat(found.gradient), Quadratic().gradient(), rtol=1e-12)
    assert not np.any(flat(found.diagnostics.standard_errors))


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_a_control_variate_leaves_the_mean_and_learns_the_gradient(float64, distribution):
    """From estimate to estimate the squared error shrinks by r / (1 + r)."""
    count, draws, length = 4, 400, 12
    r = {
        "rademacher": (SIZE - 1) / count,
        "gaussian": (SIZE + 1) / count,
        "orthogonal": SIZE / count - 1,
    }[distribution]
    estimator = ForwardGradient(count, distribution=distribution)

    def chain(key):
        def one(control, key):
            found = Quadratic().at(estimator, key=key, control=control)
            return found.diagnostics.control, found.gradient

        zeros = {"a": jnp.zeros((3, 2)), "b": jnp.zeros((3, 2))}
        return jax.lax.scan(one, zeros, jax.random.split(key, length))[1]

    found = jax.jit(jax.vmap(chain))(jax.random.split(jax.random.key(3), draws))
    found = flat(found, (draws, length))
    exact = Quadratic().gradient()
    errors = found.std(axis=0, ddof=1) / np.sqrt(draws)
    assert np.all(np.abs(found.mean(axis=0) - exact) < 4.5 * errors)  # of 12 x 12 numbers
    squared = np.mean(np.sum((found - exact) ** 2, axis=-1), axis=0) / np.sum(exact**2)
    expected = r * (r / (1 + r)) ** np.arange(length)
    np.testing.assert_allclose(squared, expected, rtol=0.25)


def test_another_key_gives_another_estimate_and_the_same_key_the_same():
    first, same, other = (
        flat(Quadratic().at(ForwardGradient(3), key=jax.random.key(seed)).gradient)
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, same)
    assert np.linalg.norm(first - other) > 0.1 * np.linalg.norm(first)


@pytest.mark.parametrize("kind", [ForwardGradient, ZerothOrder])
def test_more_orthogonal_directions_than_meta_parameters_are_refused(kind):
    with pytest.raises(EstimatorError, match="directions = 13: .* more than 12 orthogonal ones"):
        Quadratic().at(kind(13, distribution="orthogonal"), key=jax.random.key(0))


@pytest.mark.parametrize("kind", [ForwardGradient, ZerothOrder])
def test_randomness_needs_a_key(kind):
    with pytest.raises(EstimatorError, match="random directions need a key"):
        Quadratic().at(kind(2))
