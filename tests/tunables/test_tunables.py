"""What each tunable does to the hyperparameters."""

import jax.numpy as jnp
import numpy as np
import pytest

from metatune.models import ParameterNames
from metatune.tunables import Hyper, TunableLearningRates, TunableLossWeights, TunableMixture
from metatune.tunables.groups import group
from metatune.tunables.simplex import logits_of, shares

NAMES = {
    "head": ParameterNames(("head.weight",), stacked=False),
    "up": ParameterNames(("layers.0.up.weight", "layers.1.up.weight"), stacked=True),
}
BASE = Hyper(
    {"head": jnp.full((1, 1), 0.5), "up": jnp.full((1, 1, 1), 0.5)},
    mixture=jnp.array([0.5, 0.5]),
    loss_weights=jnp.ones(2),
)


def test_learning_rates_multiply_the_base_rate_in_their_window():
    tunable = TunableLearningRates(group(NAMES, "tensor", ""), windows=2, steps=4)
    eta = np.log([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    for step, row in enumerate([[1, 2, 3], [1, 2, 3], [4, 5, 6], [4, 5, 6]]):
        rates = tunable.apply(jnp.asarray(eta), jnp.int32(step), BASE).learning_rate
        np.testing.assert_allclose(rates["head"], [[0.5 * row[0]]], rtol=1e-6)
        want = np.reshape([0.5 * row[1], 0.5 * row[2]], (2, 1, 1))
        np.testing.assert_allclose(rates["up"], want, rtol=1e-6)


def test_a_parameter_of_no_group_keeps_the_base_rate():
    tunable = TunableLearningRates(group(NAMES, {"first": r"layers\.0"}, ""), windows=1, steps=1)
    rates = tunable.apply(jnp.array([[1.0]]), jnp.int32(0), BASE).learning_rate
    np.testing.assert_array_equal(rates["head"], [[0.5]])
    np.testing.assert_allclose(np.ravel(rates["up"]), [0.5 * np.e, 0.5], rtol=1e-6)


def test_the_mixture_starts_at_the_given_shares_and_respects_its_floor():
    tunable = TunableMixture((0.7, 0.2, 0.1), windows=2, floor=0.05, steps=10)
    base = BASE._replace(mixture=jnp.ones(3) / 3)
    start = tunable.apply(tunable.initial(), jnp.int32(0), base).mixture
    np.testing.assert_allclose(start, [0.7, 0.2, 0.1], rtol=1e-6)
    far = tunable.apply(jnp.array([[50.0, 0, 0], [0, 0, 0]]), jnp.int32(4), base).mixture
    np.testing.assert_allclose(far, [0.9, 0.05, 0.05], rtol=1e-6)


def test_loss_weights_average_one():
    tunable = TunableLossWeights((1.0,) * 3, windows=1, steps=10)
    weights = tunable.apply(jnp.array([[1.0, -2.0, 0.3]]), jnp.int32(9), BASE).loss_weights
    assert float(jnp.mean(weights)) == pytest.approx(1, rel=1e-6)
    np.testing.assert_allclose(weights[0] / weights[1], np.exp(3), rtol=1e-5)


def test_logits_and_shares_are_inverse():
    wanted = [0.6, 0.3, 0.1]
    np.testing.assert_allclose(shares(logits_of(wanted, 0.02), 0.02), wanted, rtol=1e-6)


def test_linear_multipliers_lie_on_lines_between_knots():
    tunable = TunableLearningRates(group(NAMES, "global", ""), 3, 7, interpolation="linear")
    assert tunable.knots == pytest.approx((0, 3 / 7, 6 / 7))
    eta = jnp.log(jnp.array([[1.0], [4.0], [2.0]]))
    found = [
        float(tunable.apply(eta, jnp.int32(step), BASE).learning_rate["head"][0, 0])
        for step in range(7)
    ]
    np.testing.assert_allclose(found, 0.5 * np.array([1, 2, 3, 4, 10 / 3, 8 / 3, 2]), rtol=1e-6)


def test_multipliers_stay_within_their_bound():
    tunable = TunableLearningRates(group(NAMES, "global", ""), 1, 4, max_multiplier=3.0)
    eta = np.array([[-50.0]]), np.array([[50.0]]), np.array([[1e-4]])
    low, high, near = (float(tunable.multipliers(each)[0, 0]) for each in eta)
    assert (low, high) == pytest.approx((1 / 3, 3))
    assert np.log(near) == pytest.approx(1e-4, rel=1e-6)
    rate = tunable.apply(jnp.asarray(eta[1], jnp.float32), jnp.int32(0), BASE).learning_rate
    np.testing.assert_allclose(rate["head"], [[1.5]], rtol=1e-6)
