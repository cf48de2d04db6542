"""Every estimator, against closed forms, central differences and every other estimator."""

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cells import cells
from estimators import ESTIMATORS, Row
from jax.flatten_util import ravel_pytree

from metatune.hypergrad import (
    Forward,
    ForwardGradient,
    MixFlow,
    Problem,
    Reverse,
    State,
    ZerothOrder,
    hypergradient,
    train,
)
from metatune.hypergrad.problem import Batches

SEGMENT = 5
# Each in every form that it has, besides those of the table.
FORMS = {
    **ESTIMATORS,
    "reverse, no remat": Row(lambda size, segment: Reverse(64, remat=False)),
    "mixflow, one step a segment": Row(lambda size, segment: MixFlow(1)),
    "mixflow, one segment": Row(lambda size, segment: MixFlow(64)),
    "saved gradients alone": Row(lambda size, segment: MixFlow(segment, mixed_mode=False)),
    "neither mixed mode nor saved gradients": Row(
        lambda size, segment: MixFlow(segment, mixed_mode=False, save_gradients=False)
    ),
    "forward, one segment": Row(lambda size, segment: Forward(64)),
}
every_estimator = pytest.mark.parametrize("row", FORMS.values(), ids=FORMS.keys())
TELLING = {
    "reverse",
    "mixflow",
    "mixflow, recomputed gradients",
    "forward",
    "forward, in chunks",
    "forward gradient, whole basis",
    "zeroth order, whole basis",
}
"""A form of each way to compute; the others differ in where segments and chunks end."""
FURTHER = FORMS.keys() - TELLING


def at_forms(names: str, *values: object):
    """Each way to compute at the last of the values, and one backward and one forward at all.

    All else is `thorough`.
    """
    rows: dict[str, tuple[object, object]] = {}
    telling = set()
    for name, row in FORMS.items():
        for value in values:
            cell = f"{name}-{getattr(value, '__name__', value)}"
            rows[cell] = (row, value)
            if name in ("mixflow", "forward") or (name in TELLING and value is values[-1]):
                telling.add(cell)
    return pytest.mark.parametrize(("row", names), cells(rows, rows.keys() - telling))


class Setting(NamedTuple):
    problem: Problem
    eta: dict
    state: State
    batches: Batches
    outer_batches: list
    steps: int

    def at(self, eta, estimator, **options):
        if isinstance(estimator, Row):
            size = sum(np.size(leaf) for leaf in jax.tree.leaves(self.eta))
            estimator = estimator.make(size, SEGMENT)
        return hypergradient(
            self.problem,
            eta,
            self.state,
            self.batches,
            self.outer_batches,
            steps=self.steps,
            estimator=estimator,
            **{"key": jax.random.key(5), **options},
        )


@functools.cache
def ridge() -> Setting:
    """Gradient descent on a ridge regression: η is the log rate and the log penalty."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 4)), rng.normal(size=12)
    x_outer, y_outer = rng.normal(size=(2, 7, 4)), rng.normal(size=(2, 7))

    def loss(params, hyper, batch):
        fit = 0.5 * jnp.mean((batch["x"] @ params - batch["y"]) ** 2)
        return fit + 0.5 * jnp.exp(hyper["log_penalty"]) * jnp.sum(params**2)

    def update(grads, opt_state, params, hyper):
        return params - jnp.exp(hyper["log_rate"]) * grads, opt_state

    return Setting(
        Problem(
            loss,
            update,
            objective=lambda params, batch: 0.5 * jnp.mean((batch["x"] @ params - batch["y"]) ** 2),
            hyper_at=lambda eta, step: eta,
        ),
        eta={"log_rate": np.log(0.1), "log_penalty": np.log(0.3)},
        state=State(rng.normal(size=4), ()),
        batches=lambda step: {"x": x, "y": y},
        outer_batches=[{"x": x_outer[i], "y": y_outer[i]} for i in range(2)],
        steps=13,
    )


def ridge_closed_form(setting: Setting):
    """Value and hypergradient in the eigenbasis of the Hessian, by hand.

    With h_i the eigenvalues of XᵀX/n, c = exp(log_penalty), a = exp(log_rate), s_i = h_i + c, and
    b = Xᵀy/n: θ_T,i = r_i^T (θ_0,i - m_i) + m_i with r_i = 1 - a s_i and m_i = b_i / s_i.
    """
    data, steps = setting.batches(0), setting.steps
    rate, penalty = np.exp(setting.eta["log_rate"]), np.exp(setting.eta["log_penalty"])
    h, basis = np.linalg.eigh(data["x"].T @ data["x"] / len(data["x"]))
    b = basis.T @ (data["x"].T @ data["y"] / len(data["x"]))
    start = basis.T @ setting.state.params
    s = h + penalty
    r, m = 1 - rate * s, b / s
    theta = r**steps * (start - m) + m
    d_rate = -steps * rate * s * r ** (steps - 1) * (start - m)
    d_m = -b / s**2 * penalty
    d_penalty = -steps * rate * penalty * r ** (steps - 1) * (start - m) + (1 - r**steps) * d_m
    x = np.concatenate([batch["x"] for batch in setting.outer_batches])
    y = np.concatenate([batch["y"] for batch in setting.outer_batches])
    residual = x @ (basis @ theta) - y
    by_theta = basis.T @ (x.T @ residual) / len(x)
    gradient = {"log_rate": by_theta @ d_rate, "log_penalty": by_theta @ d_penalty}
    return 0.5 * np.mean(residual**2), gradient


@functools.cache
def network() -> Setting:
    """A small network under clipped AdamW: rates per tensor and window, example weights."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(40, 6, 3)), rng.normal(size=(40, 6))
    optimizer = optax.chain(
        optax.clip_by_global_norm(0.5),
        optax.scale_by_adam(eps_root=1e-10),
        optax.add_decayed_weights(0.1),
    )

    def errors(params, batch):
        hidden = jnp.tanh(batch["x"] @ params["in"])
        return (hidden @ params["out"] - batch["y"]) ** 2

    def loss(params, hyper, batch):
        return jnp.mean(hyper["weights"] * errors(params, batch))

    def update(grads, opt_state, params, hyper):
        updates, opt_state = optimizer.update(grads, opt_state, params)
        params = jax.tree.map(lambda p, u, a: p - a * u, params, updates, hyper["rate"])
        return params, opt_state

    def hyper_at(eta, step):
        rates = jnp.exp(eta["log_rates"][step // 6])
        return {
            "rate": {"in": rates[0], "out": rates[1]},
            "weights": 6 * jax.nn.softmax(eta["weights"]),
        }

    params = {"in": rng.normal(size=(3, 5)), "out": rng.normal(size=5)}
    return Setting(
        Problem(loss, update, lambda params, batch: jnp.mean(errors(params, batch)), hyper_at),
        eta={
            "log_rates": np.log(0.05) + 0.3 * rng.normal(size=(3, 2)),
            "weights": rng.normal(size=6),
        },
        state=State(params, optimizer.init(params)),
        batches=lambda step: {"x": x[step], "y": y[step]},
        outer_batches=[{"x": x[30 + i], "y": y[30 + i]} for i in range(3)],
        steps=17,
    )


def central_differences(setting: Setting, step: float):
    """The hypergradient by whole trainings on either side of η, in double precision."""
    flat, unflatten = ravel_pytree(setting.eta)

    def value(flat):
        eta = unflatten(flat)
        state, _ = train(setting.problem, eta, setting.state, setting.batches, steps=setting.steps)
        losses = [setting.problem.objective(state.params, b) for b in setting.outer_batches]
        return sum(losses) / len(losses)

    rows = np.eye(len(flat)) * step
    return np.array([(value(flat + row) - value(flat - row)) / (2 * step) for row in rows])


@functools.cache
def differences(make: Callable[[], Setting], window: int | None = None) -> np.ndarray:
    """Those of a setting, or of its last steps alone: the truth for all estimators."""
    setting = make()
    return central_differences(setting if window is None else rest_of(setting, window), 1e-5)


def rest_of(setting: Setting, window: int) -> Setting:
    """The training of the last steps, after those before it."""
    before = setting.steps - window
    state, _ = train(setting.problem, setting.eta, setting.state, setting.batches, steps=before)
    return setting._replace(
        state=state,
        batches=lambda step: setting.batches(step + before),
        problem=replace(
            setting.problem, hyper_at=lambda eta, t: setting.problem.hyper_at(eta, t + before)
        ),
        steps=window,
    )


def flat(tree) -> np.ndarray:
    return np.asarray(ravel_pytree(tree)[0])


def relative_error(got, want) -> float:
    got, want = flat(got), flat(want)
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


@every_estimator
def test_closed_form_on_ridge_regression(float64, row):
    setting = ridge()
    value, gradient = ridge_closed_form(setting)
    result = setting.at(setting.eta, row)
    assert float(result.value) == pytest.approx(value, rel=1e-12)
    assert relative_error(result.gradient, gradient) < 1e-11 + row.error


@at_forms("setting", ridge, network)
def test_central_differences(float64, row, setting):
    result = setting().at(setting().eta, row)
    assert relative_error(result.gradient, differences(setting)) < 1e-5


@at_forms("setting", ridge, network)
def test_equals_the_oracle(float64, row, setting):
    setting = setting()
    oracle = setting.at(setting.eta, Reverse(segment=setting.steps, remat=False))
    result = setting.at(setting.eta, row)
    assert relative_error(result.gradient, oracle.gradient) < 1e-10 + row.error
    assert relative_error(result.state, oracle.state) < 1e-12
    assert relative_error(result.diagnostics.losses, oracle.diagnostics.losses) < 1e-12
    assert result.diagnostics.losses.shape == (setting.steps,)


@pytest.mark.parametrize("row", cells({name: (row,) for name, row in FORMS.items()}, FURTHER))
def test_under_jit_and_vmap(float64, row):
    setting = ridge()
    estimate = jax.jit(lambda eta: setting.at(eta, row).gradient)
    assert relative_error(estimate(setting.eta), ridge_closed_form(setting)[1]) < 1e-11 + row.error
    etas = {name: jnp.array([value, value + 0.1]) for name, value in setting.eta.items()}
    batched = jax.vmap(estimate)(etas)
    for index in range(2):
        eta = {name: value[index] for name, value in etas.items()}
        _, gradient = ridge_closed_form(setting._replace(eta=jax.tree.map(float, eta)))
        assert (
            relative_error({n: v[index] for n, v in batched.items()}, gradient) < 1e-11 + row.error
        )


@pytest.mark.parametrize(
    "estimator",
    [
        Reverse(segment=10),
        MixFlow(segment=10),
        Forward(segment=10),
        ForwardGradient(directions=3, segment=10),
        ZerothOrder(directions=3, segment=10),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_any_horizon_of_a_segment_or_more_compiles_the_same_programs(float64, estimator):
    setting = ridge()
    traces = []

    def loss(params, hyper, batch):
        traces.append(1)
        return setting.problem.loss(params, hyper, batch)

    counted = setting._replace(problem=replace(setting.problem, loss=loss), steps=50)
    counted.at(setting.eta, estimator)
    first = len(traces)
    assert first > 0
    counted.at(setting.eta, estimator)
    counted._replace(steps=500).at(setting.eta, estimator)
    counted._replace(steps=17).at(setting.eta, estimator)  # the last one is filled up
    assert len(traces) == first


@at_forms("setting", ridge, network)
def test_micro_batches_give_the_same(float64, row, setting):
    setting = setting()
    split = setting._replace(problem=replace(setting.problem, micro_batches=3))
    if setting is network():  # whose weights belong to examples: they have to be split with them
        problem = replace(setting.problem, micro_batches=3, loss=weighted_by_batch)
        split = setting._replace(problem=problem, batches=numbered(setting.batches))
    whole, parts = (each.at(setting.eta, row) for each in (setting, split))
    assert relative_error(parts.gradient, whole.gradient) < 1e-10 + row.error
    assert relative_error(parts.state, whole.state) < 1e-12
    trained, losses = train(
        split.problem, setting.eta, setting.state, split.batches, steps=setting.steps
    )
    assert relative_error(trained, whole.state) < 1e-12
    assert relative_error(losses, whole.diagnostics.losses) < 1e-12


def numbered(batches):
    return lambda step: {**batches(step), "example": np.arange(6)}


def weighted_by_batch(params, hyper, batch):
    hidden = jnp.tanh(batch["x"] @ params["in"])
    errors = (hidden @ params["out"] - batch["y"]) ** 2
    return jnp.mean(hyper["weights"][batch["example"]] * errors)


def test_a_batch_that_does_not_split_is_refused():
    setting = ridge()
    split = setting._replace(problem=replace(setting.problem, micro_batches=5))
    with pytest.raises(ValueError, match=r"shape \(12, 4\) doesn't split into 5 micro-batches"):
        split.at(setting.eta, MixFlow())


@at_forms("window", 1, 4, 6)
def test_a_window_leaves_out_what_came_before(float64, row, window):
    setting = network()
    before = setting.steps - window
    _, losses = train(setting.problem, setting.eta, setting.state, setting.batches, steps=before)
    truncated = setting.at(setting.eta, row, window=window)
    assert relative_error(truncated.gradient, differences(network, window)) < 1e-5
    whole = setting.at(setting.eta, row)
    assert relative_error(truncated.state, whole.state) < 1e-12
    assert relative_error(truncated.diagnostics.losses, whole.diagnostics.losses) < 1e-12
    assert relative_error(truncated.gradient, whole.gradient) > 1e-3
    np.testing.assert_allclose(truncated.diagnostics.losses[:before], losses, rtol=1e-12)


@pytest.mark.parametrize("row", cells({name: (row,) for name, row in FORMS.items()}, FURTHER))
def test_a_training_that_is_under_way_goes_on(float64, row):
    setting = network()
    state, _ = train(setting.problem, setting.eta, setting.state, setting.batches, steps=9)
    whole = setting.at(setting.eta, row, window=8)
    rest = setting._replace(state=state, steps=8).at(setting.eta, row, start=9)
    assert relative_error(rest.gradient, whole.gradient) < 1e-10 + row.error
    assert relative_error(rest.value, whole.value) < 1e-12
    assert rest.diagnostics.losses.shape == (8,)
    assert (
        relative_error(
            setting.at(setting.eta, row, window=99).gradient,
            setting.at(setting.eta, row).gradient,
        )
        == 0
    )


def test_arrays_bound_to_a_problem_are_arguments(float64):
    """Not constants of the programs: others of the same shape compile nothing new."""
    setting, traces = ridge(), []

    def loss(scale, params, hyper, batch):
        traces.append(1)
        return scale * setting.problem.loss(params, hyper, batch)

    def at(scale):
        bound = jax.tree_util.Partial(loss, jnp.asarray(scale))
        problem = replace(setting.problem, loss=bound)
        return setting._replace(problem=problem).at(setting.eta, MixFlow(segment=5))

    one = at(1.0)
    first = len(traces)
    assert relative_error(one.gradient, ridge_closed_form(setting)[1]) < 1e-11
    assert relative_error(at(2.0).gradient, one.gradient) > 1e-3
    assert len(traces) == first


def test_the_given_state_is_left_untouched(float64):
    setting = network()
    given = jax.tree.map(jnp.asarray, setting.state)
    before = flat(given)
    setting._replace(state=given).at(setting.eta, MixFlow(segment=5))
    train(setting.problem, setting.eta, given, setting.batches, steps=5)
    np.testing.assert_array_equal(flat(given), before)


def test_the_listener_hears_both_sweeps(float64):
    setting, heard = ridge(), []
    hypergradient(*setting[:5], steps=13, estimator=MixFlow(segment=5), listener=heard.append)
    assert [(p.phase, p.step) for p in heard] == [
        ("forward", 5),
        ("forward", 10),
        ("forward", 13),
        ("backward", 3),
        ("backward", 8),
        ("backward", 13),
    ]
    assert all(np.isfinite(p.loss) and p.steps == 13 for p in heard)


def test_no_steps_and_no_outer_batch_are_refused():
    setting = ridge()
    with pytest.raises(ValueError, match="steps = 0: at least one inner step"):
        setting._replace(steps=0).at(setting.eta, MixFlow())
    with pytest.raises(ValueError, match="window = 0: at least one inner step"):
        setting.at(setting.eta, MixFlow(), window=0)
    with pytest.raises(ValueError, match="outer_batches is empty"):
        setting._replace(outer_batches=[]).at(setting.eta, MixFlow())
