"""Outer optimizers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metatune.fit.searching.outer_optimizers import (
    averaged,
    build,
    converged,
    handed_on,
    sign_with_halving,
)
from metatune.recipe import schema


def path(optimizer, state, gradients):
    """The updates of gradients one after the other, and the state after them."""
    steps = []
    for gradient in gradients:
        step, state = optimizer.update(gradient, state)
        steps.append(jax.tree.map(np.asarray, step))
    return steps, state


def along(*gradients):
    """Hypergradients of a single tunable."""
    return [{"rates": jnp.array(gradient, jnp.float32)} for gradient in gradients]


def test_a_step_halves_where_the_sign_flips():
    optimizer = sign_with_halving(0.4)
    state = optimizer.init({"rates": jnp.zeros(3)})
    steps, _ = path(optimizer, state, along([1, -2, 0], [3, 5, 1], [-1, -1, 0], [-1, 2, -1]))
    np.testing.assert_allclose(
        [step["rates"] for step in steps],
        [[-0.4, 0.4, 0], [-0.4, -0.2, -0.4], [0.2, 0.1, 0], [0.2, -0.05, 0.2]],
        rtol=1e-6,
    )


def test_sign_steps_reach_the_minimum_of_a_quadratic_and_know_it():
    """η moves by halves from 0: 0.5, 0.25, ...; below 0.05 it stays within a step of the goal."""
    spec = schema.SignSpec(learning_rate=0.5, tolerance=0.05)
    optimizer = build(spec, clip_norm=None)
    goal = np.array([0.3, -1.7], np.float32)
    rates = np.zeros(2, np.float32)
    state = optimizer.init({"rates": rates})
    sizes = [np.full(2, 0.5)]
    while not converged(spec, state):
        assert sizes[-1].max() >= 0.05 and len(sizes) < 40
        step, state = path(optimizer, state, [{"rates": rates - goal}])
        rates = rates + step[0]["rates"]
        sizes.append(np.abs(step[0]["rates"]))
    np.testing.assert_allclose(rates, goal, atol=0.05)
    assert sizes[-1].max() == 0.5 / 2**4  # the first below 0.05


@pytest.mark.parametrize(
    ("halvings", "tolerance", "expected"),
    [(2, 0.05, False), (3, 0.05, True), (2, 0.0501, True), (9, None, False)],
)
def test_converged_is_below_the_tolerance_not_at_it(halvings, tolerance, expected):
    spec = schema.SignSpec(learning_rate=0.2, tolerance=tolerance)
    optimizer = build(spec, clip_norm=1.0)
    state = optimizer.init({"rates": jnp.zeros(2)})
    _, state = path(optimizer, state, along(*([(-1) ** i] * 2 for i in range(halvings + 1))))
    assert converged(spec, state) == expected


def test_what_never_moved_holds_nothing_up_and_what_moves_does():
    spec = schema.SignSpec(learning_rate=0.2)
    optimizer = build(spec, clip_norm=None)
    start = optimizer.init({"rates": jnp.zeros(2)})
    _, never = path(optimizer, start, along([0, 0], [0, 0]))
    assert not converged(spec, never)
    flips = [(-1) ** i for i in range(4)]
    _, one = path(optimizer, start, along(*([flip, 0] for flip in flips)))
    assert converged(spec, one)
    _, other = path(optimizer, start, along(*([flip, 1] for flip in flips)))
    assert not converged(spec, other)
    assert not converged(
        schema.AdamSpec(), build(schema.AdamSpec(), None).init({"rates": jnp.zeros(2)})
    )


def test_each_tunable_has_its_own_first_step():
    spec = schema.SignSpec(learning_rate=0.4, per_tunable={"mixture": 0.1})
    optimizer = build(spec, clip_norm=None)
    state = optimizer.init({"rates": jnp.zeros(1), "mixture": jnp.zeros(2)})
    gradients = [
        {"rates": jnp.array([sign]), "mixture": jnp.array([sign, 1.0])} for sign in (1.0, -1.0)
    ]
    steps, _ = path(optimizer, state, gradients)
    np.testing.assert_allclose(steps[0]["rates"], [-0.4], rtol=1e-6)
    np.testing.assert_allclose(steps[0]["mixture"], [-0.1, -0.1], rtol=1e-6)
    np.testing.assert_allclose(steps[1]["rates"], [0.2], rtol=1e-6)
    np.testing.assert_allclose(steps[1]["mixture"], [0.05, -0.1], rtol=1e-6)


def test_adam_is_that_of_optax_with_a_rate_for_each_tunable():
    spec = schema.AdamSpec(learning_rate=0.3, b1=0.8, b2=0.95, per_tunable={"mixture": 0.01})
    eta = {"rates": jnp.zeros(2), "mixture": jnp.zeros((2, 2))}
    rng = np.random.default_rng(0)
    gradients = [
        {key: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32) for key, leaf in eta.items()}
        for _ in range(3)
    ]
    ours = build(spec, clip_norm=None)
    found, _ = path(ours, ours.init(eta), gradients)
    for key, rate in (("rates", 0.3), ("mixture", 0.01)):
        theirs = optax.adam(rate, b1=0.8, b2=0.95)
        expected, _ = path(theirs, theirs.init(eta), gradients)
        for got, want in zip(found, expected, strict=True):
            np.testing.assert_allclose(got[key], want[key], rtol=1e-6)


def test_descent_is_that_of_optax_with_a_rate_for_each_tunable():
    spec = schema.DescentSpec(learning_rate=0.3, momentum=0.7, per_tunable={"mixture": 0.01})
    gradients = [
        {"rates": jnp.array([1.0, -2.0]) * size, "mixture": jnp.array([[size]])}
        for size in (1.0, -0.5, 3.0)
    ]
    ours = build(spec, clip_norm=None)
    found, _ = path(ours, ours.init(gradients[0]), gradients)
    for key, rate in (("rates", 0.3), ("mixture", 0.01)):
        theirs = optax.sgd(rate, momentum=0.7)
        expected, _ = path(theirs, theirs.init(gradients[0]), gradients)
        for got, want in zip(found, expected, strict=True):
            np.testing.assert_allclose(got[key], want[key], rtol=1e-6)


@pytest.mark.parametrize(
    ("clip", "clip_norm", "expected"),
    [
        (2.5, None, {"rates": [1.5, 2.0], "mixture": [0.1]}),
        ({"rates": 1.0}, None, {"rates": [0.6, 0.8], "mixture": [0.1]}),
        ({"mixture": 0.05}, None, {"rates": [3.0, 4.0], "mixture": [0.05]}),
        ({"rates": 0.3, "mixture": 1.0}, 0.1**0.5 / 2, {"rates": [0.09, 0.12], "mixture": [0.05]}),
    ],
)
def test_each_tunable_is_clipped_by_its_own_norm_then_all_together(clip, clip_norm, expected):
    gradient = {"rates": jnp.array([3.0, 4.0]), "mixture": jnp.array([0.1])}
    optimizer = build(schema.DescentSpec(learning_rate=1.0), clip_norm, clip)
    (step,), _ = path(optimizer, optimizer.init(gradient), [gradient])
    for key, want in expected.items():
        np.testing.assert_allclose(step[key], np.negative(want), rtol=1e-6)


def test_a_gradient_of_zero_is_clipped_to_itself():
    gradient = {"rates": jnp.zeros(2)}
    optimizer = build(schema.DescentSpec(), None, 1.0)
    (step,), _ = path(optimizer, optimizer.init(gradient), [gradient])
    np.testing.assert_array_equal(step["rates"], 0)


def test_an_average_has_the_weights_of_its_definition():
    visited = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    average = {"rates": visited[0]}
    for count, eta in enumerate(visited[1:], start=1):
        average = averaged(average, {"rates": eta}, 0.8, count)
        weights = 0.8 ** np.arange(count, -1, -1)
        expected = weights @ visited[: count + 1] / weights.sum()
        np.testing.assert_allclose(average["rates"], expected, rtol=1e-5)


def test_clipping_bounds_what_adam_sees():
    optimizer = build(schema.AdamSpec(learning_rate=0.1), clip_norm=1.0)
    gradients = [
        {"rates": jnp.array([rate]), "mixture": jnp.array([share])}
        for rate, share in ((3e6, 4e6), (0.0, 0.0))
    ]
    steps, _ = path(
        optimizer, optimizer.init(jax.tree.map(jnp.zeros_like, gradients[0])), gradients
    )
    # Unclipped, the first gradient would hold Adam's second moment up for ever; clipped to norm 1
    # over both tunables the two steps are those of gradients (0.6, 0.8) and 0.
    mean = 0.1 * 0.9 * np.array([0.6, 0.8]) / (1 - 0.9**2)
    square = 0.01 * 0.99 * np.array([0.6, 0.8]) ** 2 / (1 - 0.99**2)
    found = np.concatenate([steps[1]["rates"], steps[1]["mixture"]])
    np.testing.assert_allclose(found, -0.1 * mean / (np.sqrt(square) + 1e-8), rtol=1e-5)


def test_clipping_changes_no_sign_step():
    gradients = along([3e6, -4.0], [-2e-3, 1e5])
    clipped, free = (build(schema.SignSpec(), clip_norm) for clip_norm in (1.0, None))
    start = {"rates": jnp.zeros(2)}
    pairs = zip(*(path(o, o.init(start), gradients)[0] for o in (clipped, free)), strict=True)
    for one, other in pairs:
        np.testing.assert_array_equal(one["rates"], other["rates"])


def test_a_state_is_handed_on_where_the_next_phase_can_use_it():
    def state(spec, *gradients):
        optimizer = build(spec, None)
        return path(optimizer, optimizer.init({"rates": jnp.zeros(1)}), along(*gradients))[1]

    adam, sign = schema.AdamSpec(), schema.SignSpec(learning_rate=0.2)
    assert handed_on(adam, schema.AdamSpec(learning_rate=0.01), state(adam, [1]))
    assert not handed_on(adam, sign, state(adam, [1]))
    assert not handed_on(sign, adam, state(sign, [1]))
    moved, small = state(sign, [1], [-1]), state(sign, [1], [-1], [1], [-1])
    assert handed_on(sign, schema.SignSpec(learning_rate=0.2, tolerance=0.01), moved)
    assert not handed_on(sign, schema.SignSpec(learning_rate=0.1), moved)
    assert not handed_on(
        sign, schema.SignSpec(learning_rate=0.2, per_tunable={"rates": 0.1}), moved
    )
    assert not handed_on(sign, sign, small)  # it would end at once
    assert handed_on(sign, schema.SignSpec(learning_rate=0.2, tolerance=0.01), small)


@pytest.mark.parametrize("spec", [schema.AdamSpec(), schema.DescentSpec(), schema.SignSpec()])
def test_own_optimizers_of_members_average_what_each_does_alone(spec):
    members = [
        along([1.0, -2.0], [3.0, 1.0], [-1.0, 5.0]),
        along([0.1, 4.0], [0.2, -1.0], [9.0, 0.5]),
        along([-7.0, 0.0], [2.0, 2.0], [0.3, -3.0]),
    ]
    common = {"clip_norm": 2.0, "clip": {"rates": 3.0}}
    alone = build(spec, **common)
    eta = {"rates": jnp.zeros(2)}
    each = [path(alone, alone.init(eta), gradients)[0] for gradients in members]
    own = build(spec, **common, members=3)
    stacked = [
        {"rates": jnp.stack([g["rates"] for g in now])} for now in zip(*members, strict=True)
    ]
    steps, _ = path(own, own.init(eta), stacked)
    for number, step in enumerate(steps):
        mean = np.mean([steps[number]["rates"] for steps in each], axis=0)
        np.testing.assert_allclose(step["rates"], mean, rtol=1e-6)


def test_own_sign_steps_have_converged_when_those_of_all_members_have():
    spec = schema.SignSpec(learning_rate=0.08, tolerance=0.05)
    own = build(spec, None, members=2)
    state = own.init({"rates": jnp.zeros(1)})
    _, state = path(own, state, along([[1.0], [1.0]], [[1.0], [-1.0]]))
    assert not converged(spec, state)  # the first member's sign hasn't flipped
    _, state = path(own, state, along([[-1.0], [-1.0]]))
    assert converged(spec, state)


def test_a_term_is_named_as_in_the_recipe_and_its_meta_parameters_as_in_files():
    spec = schema.DescentSpec(
        learning_rate=1.0, momentum=0.0, per_tunable={"multi_token_prediction": 0.5}
    )
    eta = {"auxiliary": jnp.array([3.0]), "z_loss": jnp.array([3.0])}
    optimizer = build(spec, None, clip={"multi_token_prediction": 1.0})
    steps, _ = path(optimizer, optimizer.init(eta), [eta])
    assert steps[0]["auxiliary"] == pytest.approx([-0.5])  # clipped to 1, at a rate of 0.5
    assert steps[0]["z_loss"] == pytest.approx([-3.0])
