"""The adjoint's growth as it is told, and capped: against the recursion written out by hand."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metatune.hypergrad import (
    Damping,
    Member,
    MixFlow,
    Problem,
    Reverse,
    State,
    hypergradient,
    hypergradients,
)

STEPS, SIZE, MOMENTUM = 12, 4, 0.5
RNG = np.random.default_rng(0)
ROTATION = np.linalg.qr(RNG.normal(size=(SIZE, SIZE)))[0]
SADDLE = ROTATION @ np.diag([1.0, 0.3, -0.5, -1.5]) @ ROTATION.T
"""Curvature of the loss: descent runs away along two of its axes."""
BOWL = ROTATION @ np.diag([1.0, 0.3, 0.5, 1.5]) @ ROTATION.T
SADDLE_ALONE = -BOWL
"""Descent runs away along every axis."""
AIM = RNG.normal(size=SIZE)
RATES = 0.2 + 0.1 * RNG.random(STEPS)
START = RNG.normal(size=SIZE)

pytestmark = pytest.mark.usefixtures("float64")


def problem(curvature):
    def loss(params, hyper, batch):
        del hyper, batch
        return 0.5 * params @ jnp.asarray(curvature) @ params

    def update(grads, momentum, params, rate):
        momentum = MOMENTUM * momentum + grads
        return params - rate * momentum, momentum

    return Problem(
        loss,
        update,
        lambda params, batch: batch * (jnp.asarray(AIM) @ params),
        lambda eta, step: eta[step],
    )


def by(estimator, curvature=SADDLE, **options):
    state = State(jnp.asarray(START), jnp.zeros(SIZE))
    return hypergradient(
        problem(curvature),
        jnp.asarray(RATES),
        state,
        lambda step: jnp.zeros(()),
        [jnp.asarray(2.0)],
        steps=STEPS,
        estimator=estimator,
        **options,
    )


def growth_of(found):
    growth = found.diagnostics.growth
    assert growth is not None
    return growth


def by_hand(curvature=SADDLE, most=np.inf, points=None):
    """The gradient, and the norms of the adjoint after each step, the last first."""
    points = points or {STEPS: 1.0}
    params, momentum, moments = START, np.zeros(SIZE), []
    for rate in RATES:
        momentum = MOMENTUM * momentum + curvature @ params
        params = params - rate * momentum
        moments.append(momentum)
    of_params, of_momentum, cap = np.zeros(SIZE), np.zeros(SIZE), 0.0
    gradient, norms = np.zeros(STEPS), []
    for step in range(STEPS, -1, -1):
        if step in points:
            bar = points[step] * 2 * AIM
            of_params, cap = of_params + bar, cap + most * np.linalg.norm(bar)
        norms.append((np.linalg.norm(of_params), np.linalg.norm(of_momentum)))
        if step == 0:
            break
        gradient[step - 1] = -of_params @ moments[step - 1]
        through = of_momentum - RATES[step - 1] * of_params
        of_params, of_momentum = of_params + curvature @ through, MOMENTUM * through
        if (norm := np.linalg.norm(of_params)) > cap:
            of_params, of_momentum = of_params * cap / norm, of_momentum * cap / norm
    return gradient, np.array(norms[::-1])


@pytest.mark.parametrize("segment", [1, 5, 64])
@pytest.mark.parametrize("points", [None, {12: 0.75, 5: 0.25}])
def test_the_cap_is_the_recursion_written_out(segment, points):
    found = by(MixFlow(segment, damping=Damping(1.5)), points=points)
    gradient, norms = by_hand(most=1.5, points=points)
    np.testing.assert_allclose(found.gradient, gradient, rtol=1e-12)
    growth = growth_of(found)
    np.testing.assert_allclose(growth.params, norms[growth.steps, 0], rtol=1e-12)
    np.testing.assert_allclose(growth.opt_state, norms[growth.steps, 1], rtol=1e-12)
    assert (growth.damped < -0.1).any()  # it binds, and takes away much
    assert np.abs(gradient - by_hand(points=points)[0]).max() > 1


@pytest.mark.parametrize("recomputed", [True, False])
def test_where_the_cap_never_binds_the_hypergradient_is_exact(recomputed):
    plain = MixFlow(5, save_gradients=not recomputed)
    exact, damped = (
        by(estimator, BOWL) for estimator in (plain, replace(plain, damping=Damping(1e3)))
    )
    # Not bit for bit: XLA rounds what it joins by the program.
    np.testing.assert_allclose(damped.gradient, exact.gradient, rtol=1e-12)
    np.testing.assert_array_equal(growth_of(damped).damped, 0)
    np.testing.assert_allclose(exact.gradient, by_hand(BOWL)[0], rtol=1e-12)


def test_steps_after_the_last_that_is_capped_are_exact():
    found = by(MixFlow(1, damping=Damping(1.5)))
    exact = by_hand()[0]
    bound = np.flatnonzero(growth_of(found).damped)[-1]  # on the way before this step
    np.testing.assert_allclose(found.gradient[bound:], exact[bound:], rtol=1e-12)
    assert np.abs(found.gradient[bound - 1] / exact[bound - 1] - 1) > 0.01
    assert 0 < bound < STEPS - 1


@pytest.mark.parametrize("make", [MixFlow, Reverse])
def test_a_cap_by_segment_is_that_of_its_boundaries(make):
    found = by(make(4, damping=Damping(1.2, "segment")))
    each = by(MixFlow(1, damping=Damping(1.2)))
    assert growth_of(found).steps.tolist() == [0, 4, 8, 12]
    limit = 1.2 * growth_of(found).params[-1]
    np.testing.assert_allclose(growth_of(found).params[:-1], limit, rtol=1e-12)
    # Within the last segment nothing is capped.
    np.testing.assert_allclose(found.gradient[8:], by_hand()[0][8:], rtol=1e-12)
    assert np.abs(found.gradient[6] - each.gradient[6]) > 1e-3


@pytest.mark.parametrize("estimator", [MixFlow(5), Reverse(5)])
def test_growth_is_told_of_an_exact_hypergradient(estimator):
    growth = growth_of(by(estimator))
    norms = by_hand()[1]
    assert growth.steps.tolist() == [0, 5, 10, 12]
    np.testing.assert_allclose(growth.params, norms[growth.steps, 0], rtol=1e-12)
    np.testing.assert_allclose(growth.opt_state, norms[growth.steps, 1], rtol=1e-12)
    np.testing.assert_array_equal(growth.damped, 0)
    expected = [np.log(norms[a, 0] / norms[b, 0]) / (b - a) for a, b in ((0, 5), (5, 10), (10, 12))]
    np.testing.assert_allclose(growth.exponents, expected, rtol=1e-10)


def test_exponents_are_those_without_the_cap_where_growth_is_even():
    """One axis alone, no momentum: each step multiplies the adjoint by the same factor."""

    def update(grads, nothing, params, rate):
        return params - rate * grads, nothing

    line = Problem(
        lambda params, hyper, batch: -0.5 * jnp.sum(params**2) + 0 * hyper,
        update,
        lambda params, batch: jnp.sum(params),
        lambda eta, step: eta,
    )
    found = hypergradient(
        line,
        jnp.asarray(0.1),
        State(jnp.ones(1), ()),
        lambda step: jnp.zeros(()),
        [jnp.zeros(())],
        steps=12,
        estimator=MixFlow(4, damping=Damping(1.01)),
    )
    np.testing.assert_allclose(growth_of(found).exponents, np.log(1.1), rtol=1e-10)
    np.testing.assert_allclose(growth_of(found).params[:-1], 1.01, rtol=1e-10)


@pytest.mark.parametrize("vmap", [True, False])
def test_members_are_told_of_and_capped_each_by_itself(vmap):
    starts = [START, 3 * START]

    def curved(params, hyper, batch):
        return problem(SADDLE).loss(params, hyper, batch) + 0.1 * jnp.sum(jnp.cos(2 * params))

    whole = replace(problem(SADDLE), loss=curved)
    members = [
        Member(lambda at=at: State(jnp.asarray(at), jnp.zeros(SIZE)), lambda step: jnp.zeros(()))
        for at in starts
    ]
    options = {"steps": STEPS, "estimator": MixFlow(5, damping=Damping(1.2))}
    outer, eta = [jnp.asarray(2.0)], jnp.asarray(RATES)
    found = hypergradients(whole, eta, members, outer, vmap=vmap, **options)
    alone = [
        hypergradient(whole, eta, each.begin(), each.batches, outer, **options) for each in members
    ]
    growth = growth_of(found)
    for index, each in enumerate(alone):
        np.testing.assert_allclose(found.diagnostics.members[index], each.gradient, rtol=1e-9)
        own = growth_of(each)
        for name in ("params", "opt_state", "damped"):
            np.testing.assert_allclose(getattr(growth, name)[:, index], getattr(own, name), 1e-9)
    assert not np.allclose(growth.damped[:, 0], growth.damped[:, 1])


def anew_by_hand(segment, most, points, curvature=SADDLE, start=START):
    """The gradient, and the steps at which the adjoint began anew, the last first."""
    params, momentum, moments = start, np.zeros(SIZE), []
    for rate in RATES:
        momentum = MOMENTUM * momentum + curvature @ params
        params = params - rate * momentum
        moments.append(momentum)
    of_params, of_momentum, cap = np.zeros(SIZE), np.zeros(SIZE), 0.0
    gradient, anew = np.zeros(STEPS), []
    for step in range(STEPS, 0, -1):
        if step % segment == 0 and step < STEPS and np.linalg.norm(of_params) > cap:
            # The loss that is looked at is linear: its gradient is the same everywhere.
            weight = sum(of_point for point, of_point in points.items() if point > step)
            of_params, of_momentum = weight * 2 * AIM, np.zeros(SIZE)
            cap = most * np.linalg.norm(of_params)
            anew.append(step)
        if step in points:
            bar = points[step] * 2 * AIM
            of_params, cap = of_params + bar, cap + most * np.linalg.norm(bar)
        gradient[step - 1] = -of_params @ moments[step - 1]
        through = of_momentum - RATES[step - 1] * of_params
        of_params, of_momentum = of_params + curvature @ through, MOMENTUM * through
    return gradient, anew


@pytest.mark.parametrize("make", [MixFlow, Reverse])
@pytest.mark.parametrize("points", [{12: 1.0}, {12: 0.75, 4: 0.25}])
def test_an_adjoint_above_the_cap_begins_anew(make, points):
    found = by(make(2, damping=Damping(1.3, "segment", restart=True)), points=points)
    gradient, anew = anew_by_hand(2, 1.3, points)
    np.testing.assert_allclose(found.gradient, gradient, rtol=1e-12)
    assert len(anew) > 1
    growth = growth_of(found)
    assert growth.steps[:-1][np.asarray(growth.damped) != 0].tolist() == anew[::-1]
    np.testing.assert_allclose(found.gradient[anew[0] :], by_hand(points=points)[0][anew[0] :])
    assert np.abs(gradient - by_hand(points=points)[0]).max() > 1


def test_what_lies_before_a_restart_is_tuned_for_the_objective_there():
    """The derivative of a training that ends at that step."""
    estimator = MixFlow(4, damping=Damping(1.05, "segment", restart=True))
    found = by(estimator, points={12: 1.0})
    shorter = hypergradient(
        problem(SADDLE),
        jnp.asarray(RATES),
        State(jnp.asarray(START), jnp.zeros(SIZE)),
        lambda step: jnp.zeros(()),
        [jnp.asarray(2.0)],
        steps=4,
        estimator=MixFlow(4),
    )
    np.testing.assert_allclose(found.gradient[:4], shorter.gradient[:4], rtol=1e-12)


def test_where_an_adjoint_never_begins_anew_the_hypergradient_is_exact():
    damping = Damping(1e3, "segment", restart=True)
    found = by(MixFlow(5, damping=damping), BOWL)
    np.testing.assert_array_equal(found.gradient, by(MixFlow(5), BOWL).gradient)
    np.testing.assert_array_equal(growth_of(found).damped, 0)


def test_trainings_side_by_side_begin_anew_together_where_most_have_outgrown_the_cap():
    """Of three adjoints one doesn't grow: its training looks as far as the others."""
    starts, signs = [START, 3 * START, START], [1.0, 1.0, -1.0]
    members = [
        Member(
            lambda at=at: State(jnp.asarray(at), jnp.zeros(SIZE)),
            lambda step, sign=sign: jnp.asarray(sign),
        )
        for at, sign in zip(starts, signs, strict=True)
    ]

    def tilted(params, hyper, batch):
        del hyper
        return batch * 0.5 * params @ jnp.asarray(SADDLE_ALONE) @ params

    damping = Damping(1.3, "segment", restart=True)
    found = hypergradients(
        replace(problem(SADDLE), loss=tilted),
        jnp.asarray(RATES),
        members,
        [jnp.asarray(2.0)],
        vmap=True,
        steps=STEPS,
        estimator=MixFlow(2, damping=damping),
    )
    anew = anew_by_hand(2, 1.3, {12: 1.0}, SADDLE_ALONE)[1]
    damped = np.asarray(growth_of(found).damped)
    assert growth_of(found).steps[:-1][damped[:, 2] != 0].tolist() == anew[::-1]
    for index, (start, sign) in enumerate(zip(starts, signs, strict=True)):
        expected = anew_by_hand(2, 1.3, {12: 1.0}, sign * SADDLE_ALONE, start)
        if index < 2:
            np.testing.assert_allclose(
                found.diagnostics.members[index], expected[0], rtol=1e-9, atol=1e-12
            )
        else:
            assert expected[1] == []  # alone it would have looked to the end


def test_caps_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="max_growth = 0: must be above 0"):
        Damping(0)
    with pytest.raises(ValueError, match="damping.every = 'step' with restart: .* give 'segment'"):
        Damping(2.0, restart=True)
    with pytest.raises(ValueError, match="give 'segment', or take mixflow"):
        Reverse(damping=Damping(1.0))
    assert jax.tree.leaves(growth_of(by(MixFlow(5))))[0].dtype == np.int64
