"""Outer optimizers."""

import jax.numpy as jnp
import numpy as np

from metatune.fit.outer_optimizers import build, sign_with_halving
from metatune.recipe import schema


def test_a_step_halves_where_the_sign_flips():
    optimizer = sign_with_halving(0.4)
    eta = jnp.zeros(3)
    state = optimizer.init(eta)
    path = []
    for gradient in ([1, -2, 0], [3, 5, 1], [-1, -1, 0], [-1, 2, -1]):
        step, state = optimizer.update(jnp.array(gradient, jnp.float32), state)
        path.append(np.asarray(step))
    np.testing.assert_allclose(
        path, [[-0.4, 0.4, 0], [-0.4, -0.2, -0.4], [0.2, 0.1, 0], [0.2, -0.05, 0.2]], rtol=1e-6
    )


def test_sign_steps_reach_the_minimum_of_a_quadratic():
    optimizer = sign_with_halving(0.5)
    goal = np.array([0.3, -1.7], np.float32)
    eta = np.zeros(2, np.float32)
    state = optimizer.init(eta)
    for _ in range(40):
        step, state = optimizer.update(eta - goal, state)
        eta = eta + np.asarray(step)
    np.testing.assert_allclose(eta, goal, atol=1e-3)


def test_clipping_bounds_what_the_optimizer_sees():
    outer = schema.Outer(steps=1, optimizer=schema.Adam(learning_rate=0.1), clip_norm=1.0)
    optimizer = build(outer)
    state = optimizer.init(jnp.zeros(2))
    for gradient in (jnp.array([3e6, 4e6]), jnp.array([0.0, 0.0])):
        step, state = optimizer.update(gradient, state)
    # Unclipped, the first gradient would hold Adam's second moment up for ever; clipped to norm 1
    # the two steps are those of gradients (0.6, 0.8) and 0.
    mean = 0.1 * 0.9 * np.array([0.6, 0.8]) / (1 - 0.9**2)
    square = 0.01 * 0.99 * np.array([0.6, 0.8]) ** 2 / (1 - 0.99**2)
    np.testing.assert_allclose(np.asarray(step), -0.1 * mean / (np.sqrt(square) + 1e-8), rtol=1e-5)
