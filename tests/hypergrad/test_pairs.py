"""Sides that diverge: what they count as, and where the derivative then points."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cells import cells

from metatune.hypergrad import (
    Member,
    Problem,
    State,
    ZerothOrder,
    hypergradient,
    hypergradients,
)
from metatune.hypergrad.forward.directions import draw, mean
from metatune.hypergrad.forward.pairs import compared

AIM, WALL, HERE, STEP = 2.0, 1.0, 0.8, 0.3
"""The loss falls up to `AIM`, beyond `WALL` there is none, and it is stood at `HERE`."""

pytestmark = pytest.mark.usefixtures("float64")


def loss_at(x, beyond=np.inf):
    """Quadratic inside, without a finite value beyond the wall."""
    return np.where(x > WALL, beyond, (x - AIM) ** 2)


@cache  # the same functions have the same programs
def problem(beyond):
    """One step that puts the parameters where η is, and the quadratic with its wall."""

    def objective(params, batch):
        return jnp.where(params[0] > WALL, beyond, jnp.sum((params - AIM) ** 2))

    return Problem(
        lambda params, hyper, batch: jnp.sum(params) * batch,
        lambda grads, opt_state, params, hyper: (hyper, opt_state),
        objective,
        lambda eta, step: eta,
    )


ARGUMENTS = {"outer_batches": [jnp.zeros(1)], "steps": 1}


def by(estimator, key, eta=HERE, beyond=np.inf):
    state, batches = State(jnp.zeros(1), ()), lambda step: jnp.zeros(())
    at = jnp.full(1, eta)
    return hypergradient(
        problem(beyond), at, state, batches, estimator=estimator, key=key, **ARGUMENTS
    )


def counts(found):
    """Sides that diverged, and directions that are left out."""
    sides, lost = found.diagnostics.diverged_sides, found.diagnostics.lost_directions
    assert sides is not None and lost is not None
    return int(sides), int(lost)


def by_hand(directions, drop):
    """The mean over the directions of a draw, diverged sides dropped with their pair or counted."""
    sides = loss_at(HERE + STEP * np.stack([directions, -directions], axis=1))
    if not drop:
        finite = np.append(sides[np.isfinite(sides)], loss_at(HERE))
        wall = finite.max() + (finite.max() - finite.min())
        sides = np.where(np.isfinite(sides), sides, wall)
    samples = (sides[:, 0] - sides[:, 1]) / (2 * STEP) * directions
    return samples[np.isfinite(samples)].mean()


@pytest.mark.parametrize("beyond", cells([np.inf, np.nan], [np.inf]))
@pytest.mark.parametrize("chunk", cells([1, 5], [1]))
def test_the_derivative_points_away_from_divergence(beyond, chunk):
    """Without the diverged pairs the mean leads over the wall; with them it leads away."""
    estimator = ZerothOrder(8, STEP, distribution="gaussian", chunk=chunk)
    new, old = [], []
    for seed in range(40):
        key = jax.random.key(seed)
        found = by(estimator, key, beyond=beyond)
        directions = np.asarray(draw(key, jnp.zeros(1), 8, "gaussian"))[:, 0]
        np.testing.assert_allclose(found.gradient, [by_hand(directions, drop=False)], rtol=1e-10)
        diverged = np.sum(HERE + STEP * np.abs(directions) > WALL)
        assert counts(found)[0] == diverged
        assert counts(found)[1] == 0
        new.append(float(found.gradient[0]))
        old.append(by_hand(directions, drop=True))
    errors = np.std([new, old], axis=1, ddof=1) / np.sqrt(len(new))
    # A search goes against the derivative: to the wall, and away from it.
    assert np.mean(old) < -5 * errors[1]
    assert np.mean(new) > 5 * errors[0]


def test_where_nothing_diverges_nothing_changes():
    """The same bits as the plain mean over the directions."""
    found = by(ZerothOrder(6, 1e-3, distribution="gaussian"), key := jax.random.key(0), eta=0.0)
    directions = draw(key, jnp.zeros(1), 6, "gaussian")
    sides = [(float(v) * 1e-3 - AIM) ** 2 for v in directions[:, 0]]
    others = [(-float(v) * 1e-3 - AIM) ** 2 for v in directions[:, 0]]
    derivatives = jnp.asarray((np.array(sides) - np.array(others)) / 2e-3)
    gradient, errors = mean(jnp.zeros(1), derivatives, directions, "gaussian")
    np.testing.assert_array_equal(found.gradient, gradient)
    np.testing.assert_array_equal(found.diagnostics.standard_errors, errors)
    assert counts(found)[0] == 0


def test_a_wall_is_beyond_all_finite_losses_by_their_range():
    nan, inf = np.nan, np.inf
    found = compared(np.array([[1.0, 3.0], [inf, 2.0], [nan, -inf], [0.0, nan]]))
    np.testing.assert_array_equal(found.differences, [-2.0, 6.0 - 2.0, 0.0, 0.0 - 6.0])
    np.testing.assert_array_equal(found.kept, [True, True, False, True])
    assert (found.diverged, found.mean) == (4, 1.5)
    further = compared(np.array([[1.0, inf]]), np.array([2.0]))
    np.testing.assert_array_equal(further.differences, [1.0 - 3.0])  # on a line through both


@pytest.mark.parametrize(("only", "wall"), [(3.0, 6.0), (-3.0, 0.0), (0.0, 1.0)])
def test_a_single_loss_has_a_wall_too(only, wall):
    found = compared(np.array([[np.nan, only]]))
    np.testing.assert_array_equal(found.differences, [wall - only])


def test_pairs_that_are_left_out_are_out_of_mean_and_error():
    """Of four samples three are kept: their mean and standard error, by hand."""
    directions = jax.random.normal(jax.random.key(0), (4, 3))
    derivatives, kept = jnp.array([1.0, 0.0, -2.0, 0.5]), jnp.array([True, False, True, True])
    found = mean(jnp.zeros(3), derivatives, directions, "gaussian", kept=kept)
    samples = np.asarray(derivatives[:, None] * directions)[[0, 2, 3]]
    np.testing.assert_allclose(found[0], samples.mean(axis=0), rtol=1e-12)
    assert found[1] is not None
    np.testing.assert_allclose(found[1], samples.std(axis=0, ddof=1) / 3**0.5, rtol=1e-12)


def test_where_every_pair_diverged_there_is_no_derivative():
    found = by(ZerothOrder(3, 10.0), jax.random.key(0), beyond=jnp.nan, eta=WALL + 20)
    assert np.isnan(found.gradient).all()
    assert counts(found)[0] == 6
    assert counts(found)[1] == 3


def test_members_of_a_population_are_counted_together():
    estimator = ZerothOrder(4, STEP, distribution="gaussian")
    members = [
        Member(
            lambda: State(jnp.zeros(1), ()), lambda step: jnp.zeros(()), key=jax.random.key(seed)
        )
        for seed in range(3)
    ]
    found = hypergradients(
        problem(np.inf), jnp.full(1, HERE), members, estimator=estimator, vmap=False, **ARGUMENTS
    )
    alone = [counts(by(estimator, each.key))[0] for each in members]
    assert counts(found)[0] == sum(alone) > 0
    assert counts(found)[1] == 0
