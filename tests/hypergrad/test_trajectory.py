"""An objective at several points of the training: every estimator against whole trainings."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from estimators import made
from jax.flatten_util import ravel_pytree

from metatune.hypergrad import (
    Checkpoints,
    Forward,
    MixFlow,
    Problem,
    State,
    hypergradient,
    train,
)

STEPS, POINTS = 11, {3: 0.2, 4: 0.5, 9: 0.1, 11: 0.2}
RNG = np.random.default_rng(0)
X, Y, HELD_X, HELD_Y = (RNG.normal(size=s) for s in ((STEPS, 5, 3), (STEPS, 5), (2, 6, 3), (2, 6)))


def _loss(params, hyper, batch):
    return (
        jnp.mean(jnp.tanh(batch["x"] @ params - batch["y"]) ** 2) + hyper["decay"] * params @ params
    )


def _update(grads, momentum, params, hyper):
    momentum = 0.8 * momentum + grads
    return params - hyper["rate"] * momentum, momentum


def _hyper_at(eta, step):
    return {"rate": jnp.exp(eta["log_rates"][step // 4]), "decay": jnp.exp(eta["log_decay"])}


PROBLEM = Problem(
    _loss,
    _update,
    lambda params, batch: jnp.mean((batch["x"] @ params - batch["y"]) ** 2),
    _hyper_at,
)
ETA = {"log_rates": np.log([0.2, 0.1, 0.3]), "log_decay": np.log(0.05)}
ESTIMATORS = made(size=4, segment=4, leave_out=("whole basis",))


def found(estimator, **options):
    given = {"steps": STEPS, "points": POINTS, "key": jax.random.key(0), **options}
    return hypergradient(
        PROBLEM,
        jax.tree.map(jnp.asarray, ETA),
        State(jnp.array([0.5, -1.0, 0.3]), jnp.zeros(3)),
        lambda step: {"x": X[step], "y": Y[step]},
        [{"x": HELD_X[i], "y": HELD_Y[i]} for i in range(2)],
        estimator=estimator,
        **given,
    )


def averaged(eta):
    """The objective, from trainings that end at each point."""
    total = 0.0
    for steps, weight in POINTS.items():
        state, _ = train(
            PROBLEM,
            eta,
            State(jnp.array([0.5, -1.0, 0.3]), jnp.zeros(3)),
            lambda step: {"x": X[step], "y": Y[step]},
            steps=steps,
            segment=4,
        )
        residuals = HELD_X @ np.asarray(state.params) - HELD_Y
        total += weight * float(np.mean(residuals**2))
    return total


@pytest.fixture(scope="module")
def expected():
    """Value and central differences, in double precision."""
    with jax.enable_x64(True):
        flat, unflatten = ravel_pytree(jax.tree.map(jnp.asarray, ETA))
        sides = [
            averaged(unflatten(flat + 1e-5 * e)) - averaged(unflatten(flat - 1e-5 * e))
            for e in np.eye(len(flat))
        ]
        return averaged(ETA), np.array(sides) / 2e-5


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_estimator_averages_along_the_training(float64, expected, name):
    some: dict[str, Any] = {"checkpoints": Checkpoints(2)} if "recomputed" in name else {}
    result = found(ESTIMATORS[name], **some)
    assert float(result.value) == pytest.approx(expected[0], rel=1e-12)
    np.testing.assert_allclose(ravel_pytree(result.gradient)[0], expected[1], atol=1e-8)


def test_the_end_alone_is_the_default(float64):
    plain, one = (found(MixFlow(segment=4), points=points) for points in (None, {STEPS: 1.0}))
    assert float(plain.value) == float(one.value)
    assert jax.tree.all(jax.tree.map(np.array_equal, plain.gradient, one.gradient))
    half = found(MixFlow(segment=4), points={STEPS: 0.5})
    np.testing.assert_allclose(half.gradient["log_rates"], one.gradient["log_rates"] / 2)


def test_truncated_all_agree_and_earlier_points_count_in_the_value_alone(float64, expected):
    options = {
        "window": 7
    }  # the points are after 3, 4, 9 and 11 steps: one before, one at its start
    first = found(MixFlow(segment=4), **options)
    assert float(first.value) == pytest.approx(expected[0], rel=1e-12)
    for name in ("reverse", "forward", "zeroth order, in chunks"):
        other = found(ESTIMATORS[name], **options)
        assert float(other.value) == pytest.approx(expected[0], rel=1e-12)
        for key, slope in first.gradient.items():
            np.testing.assert_allclose(other.gradient[key], slope, atol=1e-8)
    late = found(MixFlow(segment=4), points={9: 0.1, 11: 0.2}, **options)
    for key, slope in first.gradient.items():
        np.testing.assert_allclose(late.gradient[key], slope, atol=1e-12)


@pytest.mark.parametrize("stop", [3, 4, 5])
def test_forward_mode_goes_on_from_a_carry_between_points(float64, stop):
    kept = []

    def keep(progress):
        kept.append(jax.tree.map(lambda leaf: np.array(leaf, copy=True), progress.carry))

    whole = found(Forward(segment=4, chunk=3), listener=keep)
    rest = found(Forward(segment=4, chunk=3), carry=kept[stop])
    assert float(rest.value) == float(whole.value)
    assert jax.tree.all(jax.tree.map(np.array_equal, rest.gradient, whole.gradient))


@pytest.mark.parametrize("points", [{0: 1.0}, {12: 1.0}, {3: 0.5, 12: 0.5}])
def test_points_beyond_the_training_are_refused(points):
    with pytest.raises(ValueError, match="each must be from 1 to steps, 11"):
        found(MixFlow(), points=points)
