"""Differences of trainings, and their blend with exact derivatives, on a chaotic training.

Angles are multiplied by k at each of T inner steps, from ones that depend on η and on the seed φ:
`F(η) = ½ (η - 1)² + A Σ_j cos(m_j k^T (η + φ_j))`. The adjoint grows by k a step. Smoothed over ±ε,
and in the mean over seeds, the derivative is η - 1.
"""

import jax.numpy as jnp
import numpy as np
import pytest

from metatune.hypergrad import MixFlow, Problem, State, hypergradient
from metatune.hypergrad.blending import ENOUGH, blend
from metatune.hypergrad.smoothing import smoothed_slope

STEPS, ETA, HEIGHT, EPS = 8, 0.3, 0.01, 0.3
MULTIPLIERS = np.array([1.0, 1.31, 1.73, 2.3])
PHI = np.array([0.7, -0.2, 1.9, 0.4])


def problem(k):
    """Step 0 puts η into the angle, all steps multiply it."""

    def update(grads, opt_state, params, hyper):
        del grads
        eta, first = hyper
        return {"angle": k * (params["angle"] + first * eta), "plain": eta}, opt_state

    return Problem(
        loss=lambda params, hyper, batch: 0.0 * jnp.sum(params["angle"]),
        update=update,
        objective=lambda params, batch: (
            0.5 * (params["plain"] - 1) ** 2
            + HEIGHT * jnp.sum(jnp.cos(jnp.asarray(MULTIPLIERS) * params["angle"]))
        ),
        hyper_at=lambda eta, step: (eta, jnp.where(step == 0, 1.0, 0.0)),
    )


def state(phi):
    return State({"angle": jnp.asarray(phi), "plain": jnp.asarray(0.0)}, ())


def exact(growth, phi):
    """Phases [4, ...]."""
    fast = growth * MULTIPLIERS.reshape(-1, *[1] * (np.ndim(phi) - 1))
    return ETA - 1 - HEIGHT * np.sum(fast * np.sin(fast * (ETA + phi)), axis=0)


def smoothed(growth, phi):
    fast = growth * MULTIPLIERS.reshape(-1, *[1] * (np.ndim(phi) - 1))
    sides = [
        0.5 * (eta - 1) ** 2 + HEIGHT * np.sum(np.cos(fast * (eta + phi)), axis=0)
        for eta in (ETA + EPS, ETA - EPS)
    ]
    return (sides[0] - sides[1]) / (2 * EPS)


def slope(k, phi, **options):
    return smoothed_slope(
        problem(k),
        jnp.asarray(ETA),
        jnp.asarray(1.0),
        state(phi),
        lambda step: np.zeros(1),
        [np.zeros(1)],
        **{"step": EPS, "steps": STEPS, "segment": 4} | options,
    )


@pytest.mark.parametrize("k", [0.8, 1.5, 3.0])
def test_both_are_their_closed_forms(float64, k):
    """And the adjoint grew as the angle does."""
    found = hypergradient(
        problem(k),
        jnp.asarray(ETA),
        state(PHI),
        lambda step: np.zeros(1),
        [np.zeros(1)],
        steps=STEPS,
        estimator=MixFlow(segment=4),
    )
    assert float(found.gradient) == pytest.approx(exact(k**STEPS, PHI), rel=1e-9)
    assert slope(k, PHI) == pytest.approx(smoothed(k**STEPS, PHI), rel=1e-9)
    assert found.diagnostics.growth is not None
    # The plain part counts in the norm at the end alone: what it was is overwritten at each step.
    assert found.diagnostics.growth.exponents[0] == pytest.approx(np.log(k), rel=1e-9)


def test_points_are_averaged(float64):
    """At η the plain part is the same after each step: all that differs is the angle's."""
    found = slope(1.5, PHI, points={2: 0.25, STEPS: 0.75})
    expected = 0.25 * smoothed(1.5**2, PHI) + 0.75 * smoothed(1.5**STEPS, PHI)
    assert found == pytest.approx(expected, rel=1e-9)


def test_where_a_side_diverges_the_step_is_shrunk(float64):
    """A wall at η = 0.4: the first step is beyond it, a quarter of it isn't."""
    walled = Problem(
        loss=lambda params, hyper, batch: 0.0 * params,
        update=lambda grads, opt_state, params, eta: (
            jnp.where(eta > 0.4, jnp.inf, eta**2),
            opt_state,
        ),
        objective=lambda params, batch: params,
        hyper_at=lambda eta, step: eta,
    )

    def at(eta):
        return smoothed_slope(
            walled,
            jnp.asarray(eta),
            jnp.asarray(1.0),
            State(jnp.asarray(0.0), ()),
            lambda step: np.zeros(1),
            [np.zeros(1)],
            step=EPS,
            steps=2,
        )

    assert at(0.3) == pytest.approx(0.6, rel=1e-9)
    assert at(0.5) is None


SEEDS = np.random.default_rng(0).uniform(0, 2 * np.pi, (4, 16, 20_000))
DECADES = 10.0 ** np.arange(0, 5.5, 0.5)


@pytest.mark.parametrize(("count", "most"), [(ENOUGH, 1.11), (16, 1.1)])
def test_a_blend_is_never_much_worse_than_the_better_part(count, most):
    """Over five decades of growth, and unbiased for the smoothed objective, within its errors.

    1.1 times the better part's variance is aimed at; with eight trainings it is 1.103 at worst.
    """
    ratios, weights = [], np.ones(1)
    for growth in DECADES:
        fast = growth * MULTIPLIERS[:, None, None]
        phi = SEEDS[:, :count] / fast - ETA  # uniform in the angles, whatever the growth
        parts = exact(growth, phi), smoothed(growth, phi)
        found, weights = blend(*parts)
        error = found.std() / np.sqrt(found.size)
        assert abs(found.mean() - (ETA - 1)) < 4 * error
        ratios.append(found.var() / min(part.mean(axis=0).var() for part in parts))
        assert 0 <= weights.min() <= weights.max() <= 1
    assert max(ratios) < most
    assert weights.mean() < 1e-3  # of what is noise alone


def test_what_is_not_finite_has_no_weight():
    rows = np.random.default_rng(0).normal(size=(ENOUGH, 2))
    found, weights = blend(np.where([True, False], np.inf, rows), rows)
    assert weights[0] == 0
    assert found[0] == pytest.approx(rows[:, 0].mean())
    with pytest.raises(ValueError, match="must be of 8 trainings or more"):
        blend(rows[:7], rows[:7])
