"""The gate of a population: by hand, on noise and signal that are known, and in a search."""

import json
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from recipes import tiny
from rich.console import Console

from metatune.fit.outer_loop import fit
from metatune.fit.searching.gating import factor, gated
from metatune.inner import prepare
from metatune.recipe import schema

POOLED = frozenset({"rates"})


def spread(means, errors, members=4):
    """Gradients of these means and standard errors of the mean, [members, *shape], exactly."""
    means, errors = np.asarray(means, float), np.asarray(errors, float)
    # Of ±1 in equal numbers the variance is M / (M - 1), that of the mean 1 / (M - 1).
    signs = np.resize([1.0, -1.0], members).reshape(-1, *(1,) * means.ndim)
    return means + signs * errors * np.sqrt(members - 1)


def test_the_factor_is_that_of_james_and_stein():
    means, errors = [3.0, 2.0, 1.0, 0.5, -4.0, 0.0, 5.0], [1.0, 1.0, 1.0, 1.0, 2.0, 1.0, 0.0]
    expected = [1 - 1 / 9, 1 - 1 / 4, 0.0, 0.0, 1 - 1 / 4, 0.0, 1.0]
    np.testing.assert_allclose(factor(jnp.asarray(spread(means, errors)), 1.0), expected, atol=1e-6)
    expected = [1 - 4 / 9, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]
    np.testing.assert_allclose(factor(jnp.asarray(spread(means, errors)), 2.0), expected, atol=1e-6)


def test_what_stays_moves_together_where_its_mean_tells():
    """Window 1: one is certain, three are not, but their mean is; window 2: nothing is.

    The noises of the three are orthogonal, of standard error 1 each, so that of their mean 1/√3.
    """
    updates = {"rates": jnp.asarray([[-1.0, -0.4, -0.5, -0.6], [0.1, -0.1, 0.2, 0.3]])}
    means = np.asarray([[8.0, 0.8, 0.9, 0.95], [0.1, 0.1, 0.1, 0.1]])
    members = spread(means, np.ones((2, 4)), members=8)
    signs = np.asarray(
        [
            [1, -1, 1, -1, 1, -1, 1, -1],
            [1, 1, -1, -1, 1, 1, -1, -1],
            [1, 1, 1, 1, -1, -1, -1, -1],
        ]
    )
    members[:, 0, 1:] = means[0, 1:] + signs.T * np.sqrt(7)
    found = gated(updates, {"rates": members}, POOLED, 1.0)
    moved = np.asarray(found.updates["rates"])
    assert moved[0, 0] == pytest.approx(-(1 - 1 / 64), rel=1e-5)
    common = (1 - (1 / 3) / ((0.8 + 0.9 + 0.95) / 3) ** 2) * -0.5
    np.testing.assert_allclose(moved[0, 1:], np.full(3, common), rtol=1e-5)
    np.testing.assert_array_equal(moved[1], np.zeros(4))
    assert float(found.together["rates"]) == 3 / 8
    assert float(found.still["rates"]) == 4 / 8
    # Of shares, whose common change does nothing, none moves with another.
    apart = gated(updates, {"rates": members}, frozenset(), 1.0)
    assert float(apart.together["rates"]) == 0


def searched(gate, key, members=8, steps=30):
    """Where Adam gets to on half signal, half noise: a coordinate of either kind, root mean square.

    The objective is x²/2 in the coordinates of signal, which begin at 1, with noise of 0.3 in each
    member's gradient; and nothing in those of noise, which begin at 0, with noise of 3.
    """
    optimizer = optax.adam(0.1)
    count = 200
    eta: Any = {"rates": jnp.concatenate([jnp.ones(count), jnp.zeros(count)])}
    scale = jnp.concatenate([jnp.full(count, 0.3), jnp.full(count, 3.0)])
    curve = jnp.concatenate([jnp.ones(count), jnp.zeros(count)])

    def step(carry, key):
        eta, state = carry
        noise = scale[None] * jax.random.normal(key, (members, 2 * count))
        several = {"rates": (curve * eta["rates"])[None] + noise}
        updates: Any
        updates, state = optimizer.update({"rates": several["rates"].mean(axis=0)}, state)
        if gate is not None:
            updates = gated(updates, several, frozenset(), gate).updates
        return (optax.apply_updates(eta, updates), state), None

    carry = (eta, optimizer.init(eta))
    (eta, _), _ = jax.lax.scan(step, carry, jax.random.split(key, steps))
    size = jnp.sqrt(jnp.mean(eta["rates"].reshape(2, count) ** 2, axis=1))
    return size


def test_a_gate_keeps_noise_from_moving_and_signal_moving():
    """Noise wanders less than half as far; signal comes as near to its optimum, or nearer."""
    keys = jax.random.split(jax.random.key(0), 4)
    plain, held = (
        np.mean([jax.jit(partial(searched, gate))(key=key) for key in keys], axis=0)
        for gate in (None, 1.0)
    )
    assert held[1] < 0.5 * plain[1]
    assert held[0] < 1.1 * plain[0]


def test_a_search_is_held_back_and_says_so(tmp_path):
    """Its first step of Adam, which is one of full size in each coordinate, is the factor's."""
    population = schema.PopulationSpec(members=4, adam="shared", gate=1.0)
    outer = {"steps": 1, "population": population, "signal": "off"}
    training = prepare(tiny(outer=outer | {"optimizer": schema.AdamSpec(learning_rate=0.1)}))
    found = fit(training, tmp_path / "run", console=Console(quiet=True))
    line = found.folder.read_metrics()[0]
    assert set(line["gated"]) == {"learning_rates", "mixture"}
    for shares in line["gated"].values():
        assert set(shares) == {"still", "together"}
        assert 0 <= shares["still"] + shares["together"] <= 1
    assert json.loads(json.dumps(line["gated"])) == line["gated"]
    below = line["signal"]["learning_rates"]
    assert below["median"] is not None
    assert line["gated"]["learning_rates"]["still"] < 1
