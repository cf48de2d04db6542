"""Persistent evolution strategies against closed forms: of truncation's bias, and of smoothing."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cells import cells

from metatune.hypergrad import (
    Checkpoints,
    EstimatorError,
    MixFlow,
    PersistentES,
    Problem,
    State,
    ZerothOrder,
    hypergradient,
)

pytestmark = pytest.mark.usefixtures("float64")

SIZE, POSITIVE, STEPS, WINDOWS = 5, 2, 2, 6
CHAIN = 0.5 * np.eye(SIZE) + 0.5 * np.eye(SIZE, k=1)
PUSH = np.where(np.arange(SIZE) < POSITIVE, 1.0, -1.0)
"""Influence balancing (Tallec & Ollivier, 2017): θ pushes near parts up, and more far ones down."""
THETA = 0.5


def moving(step, objective):
    """A training without a loss: `s' = step(s, θ)`, of whose state the objective is taken."""
    return Problem(
        lambda params, hyper, batch: 0.0 * jnp.sum(params) * batch,
        lambda grads, opt_state, params, hyper: (step(params, hyper), opt_state + 1),
        lambda params, batch: objective(params),
        lambda eta, step: eta,
    )


BALANCING = moving(
    lambda s, theta: jnp.asarray(CHAIN) @ s + theta[0] * jnp.asarray(PUSH),
    lambda s: 0.5 * (s[0] - 1) ** 2,
)
ADDING = moving(lambda s, theta: s + theta, lambda s: jnp.sum(jnp.sin(s)))


def by(estimator, problem=BALANCING, state=None, **options):
    size = SIZE if problem is BALANCING else 1
    return hypergradient(
        **{
            "problem": problem,
            "eta": jnp.full(1, THETA),
            "state": State(jnp.zeros(size), jnp.int32(0)) if state is None else state,
            "batches": lambda step: jnp.zeros(()),
            "outer_batches": [jnp.zeros(())],
            "steps": STEPS,
            "estimator": estimator,
            "key": jax.random.key(0),
            **options,
        }
    )


def along(estimator, draws, problem=BALANCING, windows=WINDOWS):
    """Derivatives at the end of each window of a life, of independent draws, [draws, windows]."""

    def life(key):
        found, state = [], None
        for window, each in enumerate(jax.random.split(key, windows)):
            one = by(estimator, problem, state, start=window * STEPS, key=each)
            state = one.state
            found.append(one.gradient[0])
        return jnp.stack(found)

    return np.asarray(jax.jit(jax.vmap(life))(jax.random.split(jax.random.key(1), draws)))


def balancing_by_hand():
    """The derivative at the end of each window: through all steps, and through the window alone."""
    state, whole, truncated = np.zeros(SIZE), np.zeros(SIZE), []
    full = []
    for _ in range(WINDOWS):
        window = np.zeros(SIZE)
        for _ in range(STEPS):
            state = CHAIN @ state + THETA * PUSH
            whole, window = CHAIN @ whole + PUSH, CHAIN @ window + PUSH
        full.append((state[0] - 1) * whole[0])
        truncated.append((state[0] - 1) * window[0])
    return np.array(full), np.array(truncated)


def errors_of(found):
    return found.std(axis=0, ddof=1) / np.sqrt(len(found))


def test_the_mean_is_the_derivative_through_all_windows():
    """Of a quadratic, which smoothing leaves as it is; that of one window has the wrong sign."""
    full, truncated = balancing_by_hand()
    assert full[-1] * truncated[-1] < 0
    found = along(PersistentES(4, 0.3), draws=1500)
    assert np.all(np.abs(found.mean(axis=0) - full) < 4 * errors_of(found))
    window = along(ZerothOrder(4, 0.3, distribution="gaussian"), draws=300)
    assert np.all(np.abs(window.mean(axis=0) - truncated) < 4 * errors_of(window))
    assert np.abs(window.mean(axis=0) - full)[-1] > 20 * errors_of(window)[-1]


@pytest.mark.parametrize("distribution", ["gaussian", "rademacher"])
def test_the_mean_is_that_of_the_smoothed_objective(distribution):
    """Steps of θ add up: `sin(kθ + steps · Σ ε)`, and each ε is independent of all others."""
    sigma, windows = 0.25, 4
    found = along(PersistentES(2, sigma, distribution=distribution), 3000, ADDING, windows)
    assert np.all(np.abs(found.mean(axis=0)) > 4 * errors_of(found))  # they tell something
    count = np.arange(1, windows + 1)
    wave = STEPS * sigma
    if distribution == "gaussian":
        smoothed = np.exp(-count * wave**2 / 2)
    else:
        # E[ξ sin(a + steps · ξ)] / σ², ξ = Σ ε: each of the k signs by itself, the others blur.
        smoothed = np.sin(wave) / wave * np.cos(wave) ** (count - 1)
    derivative = STEPS * count * np.cos(STEPS * count * THETA) * smoothed
    rounding = 1e-12  # of a single sign all draws say the same
    assert np.all(np.abs(found.mean(axis=0) - derivative) < 4 * errors_of(found) + rounding)


def network(params, x):
    return jnp.tanh(x @ params["in"]) @ params["out"]


def descent_on_a_network():
    """Descent on a small network, with rates and a penalty for meta-parameters."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(20, 8, 3))

    def loss(params, hyper, x):
        penalty = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))
        return jnp.mean((network(params, x) - x[:, 0]) ** 2) + hyper["penalty"] * penalty

    def update(grads, opt_state, params, hyper):
        return jax.tree.map(lambda p, g: p - hyper["rate"] * g, params, grads), opt_state

    problem = Problem(
        loss,
        update,
        lambda params, x: jnp.mean((network(params, x) - x[:, 0]) ** 2),
        lambda eta, step: {"rate": jnp.exp(eta["rates"][step // 5]), "penalty": eta["penalty"]},
    )
    params = {"in": jnp.asarray(rng.normal(size=(3, 4))), "out": jnp.asarray(rng.normal(size=4))}
    return {
        "problem": problem,
        "eta": {"rates": jnp.log(jnp.array([0.1, 0.2])), "penalty": jnp.asarray(0.01)},
        "state": State(params, ()),
        "batches": lambda step: inputs[step],
        "outer_batches": [inputs[18], inputs[19]],
        "steps": 10,
    }


OF_ONE = {
    f"{name}, {chunk} at a time": (chunk, options)
    for name, options in {
        "whole": {},
        "window": {"window": 4},
        "points": {"points": {5: 0.5, 10: 0.5}},
    }.items()
    for chunk in (1, 2, 3)
}
DIAGONAL = {"whole, 2 at a time", "window, 1 at a time", "points, 3 at a time"}


@pytest.mark.parametrize(("chunk", "options"), cells(OF_ONE, OF_ONE.keys() - DIAGONAL))
def test_of_one_window_and_a_whole_basis_it_is_exact(chunk, options):
    given = descent_on_a_network()
    exact = hypergradient(**given, estimator=MixFlow(4), **options)
    estimator = PersistentES(3, 1e-5, 4, "orthogonal", chunk)
    found = hypergradient(**given, estimator=estimator, key=jax.random.key(0), **options)
    for name in ("rates", "penalty"):
        np.testing.assert_allclose(found.gradient[name], exact.gradient[name], rtol=1e-6, atol=1e-9)
    # Means around η: off by its curvature times the square of the step.
    assert float(found.value) == pytest.approx(float(exact.value), abs=1e-8)
    np.testing.assert_allclose(found.diagnostics.losses, exact.diagnostics.losses, atol=1e-8)
    assert found.state.params["in"].shape == (2, 3, 3, 4)


def test_a_start_that_is_moved_is_perturbed_too():
    given = descent_on_a_network()

    def start(eta, state):
        return State(jax.tree.map(lambda leaf: eta["penalty"] * leaf, state.params), ())

    given["problem"] = Problem(
        *(getattr(given["problem"], name) for name in ("loss", "update", "objective", "hyper_at")),
        start=start,
    )
    exact = hypergradient(**given, estimator=MixFlow(4))
    estimator = PersistentES(3, 1e-5, 4, "orthogonal")
    found = hypergradient(**given, estimator=estimator, key=jax.random.key(0))
    np.testing.assert_allclose(found.gradient["penalty"], exact.gradient["penalty"], rtol=1e-6)


def test_chunks_and_a_journey_through_a_file_change_nothing():
    first = by(PersistentES(3, 0.3))
    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=1e-12),
        by(PersistentES(3, 0.3, chunk=2)),
        first,
    )
    state = jax.tree.map(lambda leaf: jnp.asarray(np.array(leaf)), first.state)
    for chunk in (1, 3):
        kept = jax.tree.map(np.array, state)
        goes_on = by(PersistentES(3, 0.3, chunk=chunk), state=state, start=STEPS)
        jax.tree.map(np.testing.assert_array_equal, state, kept)  # left untouched
        assert np.unique(np.asarray(goes_on.state.opt_state.opt_state)).tolist() == [2 * STEPS]
    begun = PersistentES(3).begun(jnp.zeros(1), State(jnp.zeros(SIZE), jnp.int32(0)))
    assert jax.tree.structure(begun) == jax.tree.structure(first.state)
    shapes = [jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), s) for s in (begun, first.state)]
    assert shapes[0] == shapes[1]


def test_what_diverged_stays_so_and_is_turned_away_from():
    """Beyond a wall there is no state: those that crossed it count, as long as pairs live."""
    walled = moving(lambda s, theta: jnp.where(s + theta > 1.3, jnp.nan, s + theta), jnp.sum)
    found = by(estimator := PersistentES(64, 0.1), walled, eta=jnp.full(1, 0.5))
    first = counts(found)
    assert 0 < first[0] < 64 and first[1] == 0
    assert found.gradient[0] > 0
    assert np.isfinite(found.value) and np.isfinite(found.diagnostics.losses).all()
    still = by(estimator, walled, found.state, eta=jnp.zeros(1), start=STEPS, steps=1)
    assert counts(still)[0] >= first[0]


def counts(found):
    sides, lost = found.diagnostics.diverged_sides, found.diagnostics.lost_directions
    return int(sides), int(lost)


def test_the_listener_hears_of_all_trainings():
    heard = []
    by(PersistentES(3, segment=4, chunk=2), steps=6, listener=heard.append)
    assert [(p.step, p.steps) for p in heard] == [(step, 12) for step in (4, 6, 10, 12)]


@pytest.mark.parametrize(
    ("estimator", "options", "message"),
    [
        (PersistentES(2), {}, "3 pairs of trainings with 1 meta-parameters can't go on as 2 pairs"),
        (PersistentES(3), {"window": 1}, r"in all of their inner steps, 2, not in the last 1"),
        (PersistentES(3), {"eta": jnp.zeros(2)}, "can't go on as 3 pairs with 2: give the"),
        (PersistentES(3), {"key": None}, "random directions need a key"),
        (PersistentES(3), {"checkpoints": Checkpoints("sqrt")}, "only reverse mode keeps states"),
        (PersistentES(3), {"carry": ()}, "PersistentES can't go on from a carry"),
    ],
)
def test_what_pairs_cannot_do_is_refused(unchecked, estimator, options, message):
    state = by(PersistentES(3)).state
    with pytest.raises(EstimatorError, match=message):
        by(estimator, state=state, start=STEPS, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pairs": 0}, "pairs = 0: must be above 0"),
        ({"pairs": 1, "step": 0.0}, "step = 0.0: must be above 0"),
        ({"pairs": 1, "distribution": "normal"}, "'normal': must be one of rademacher"),
    ],
)
def test_options_that_cannot_be_meant(unchecked, options, message):
    with pytest.raises(ValueError, match=message):
        PersistentES(**options)
