"""The certificate of trainings whose every number is known, and of such as must not pass."""

import functools
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from metatune.check import Draw, Settings, Subject, as_json, certify
from metatune.check.certificate import plain
from metatune.check.differences import compared, rows
from metatune.check.levels import (
    EPS_ROOT,
    ESTIMATOR,
    HORIZON,
    LEARNING_RATE,
    NOISE,
    SAMPLING,
    Finding,
    graded,
    unresolved,
    worst,
)
from metatune.check.measuring import cost
from metatune.check.numbers import coordinate_names
from metatune.check.slopes import EPSILONS, measured_slopes, random_directions
from metatune.check.smoothness import moved
from metatune.check.subject import FixedDraw, sample
from metatune.hypergrad import (
    Forward,
    ForwardGradient,
    MixFlow,
    Problem,
    Reverse,
    State,
    ZerothOrder,
)
from metatune.report.certificate import summaries

pytestmark = pytest.mark.usefixtures("float64")

CURVATURES = np.array([0.2, 0.5, 0.8, 1.1])
STEPS, WINDOWS = 16, 2
RATES = np.array([0.1, 0.15])  # of the windows
SETTINGS = Settings(seeds=3, directions=3)


def objective(params, target):
    return 1.0 + 0.5 * jnp.sum((params - target) ** 2)


@functools.cache
def problem(steps):
    """Gradient descent on parabolas, with a log rate for each parameter and window."""

    def loss(params, hyper, batch):
        return 0.5 * jnp.sum(CURVATURES * params**2) + 0.0 * batch

    def update(grads, opt_state, params, hyper):
        return params - hyper * grads, opt_state

    def hyper_at(eta, step):
        window = step * WINDOWS // steps
        return jnp.asarray(RATES)[window] * jnp.exp(eta["rates"][window])

    return Problem(loss, update, objective, hyper_at)


def start(seed):
    return 2 + 0.1 * np.random.default_rng(seed).normal(size=4)


def subject(steps=STEPS, target=0.0, estimator=MixFlow(segment=8), **changes):  # noqa: B008
    return Subject(
        problem(steps),
        {"rates": jnp.zeros((WINDOWS, 4))},
        lambda seed: Draw(
            State(jnp.asarray(start(seed)), ()),
            lambda step: np.float64(step),
            [np.full(4, target)],
            jax.random.key(seed),
        ),
        steps,
        estimator,
        shorter=lambda steps: subject(steps, target, estimator, **changes),
        **changes,
    )


def alone(estimator):
    """Without shorter horizons, each of which compiles its own programs."""
    return replace(subject(estimator=estimator), shorter=lambda steps: None)


def checked(subject, settings) -> Any:
    """The certificate, its checks taken to be made."""
    return certify(subject, settings)


def trained(eta, seed, steps=STEPS):
    """θ_T,i = Π_w (1 - a_wi h_i)^(steps of w) θ_0,i."""
    rates = RATES[:, None] * np.exp(eta)
    return np.prod((1 - rates * CURVATURES) ** (steps / WINDOWS), axis=0) * start(seed)


def gradient(seed, steps=STEPS, target=0.0):
    """dF/dη_wi = (θ_T - target)_i θ_T,i · steps of w · (-a h) / (1 - a h)."""
    theta = trained(np.zeros((WINDOWS, 4)), seed, steps)
    decay = RATES[:, None] * CURVATURES
    return (theta - target) * theta * -steps / WINDOWS * decay / (1 - decay)


@pytest.fixture(scope="module")
def found():
    with jax.enable_x64(True):
        told = []
        watched = subject(watch=lambda work: told.append(work), choices=nearest_two)
        return checked(watched, SETTINGS), told, cost(watched, SETTINGS)


def nearest_two(params, batch):
    """A choice of two of the four parameters: the nearest to a number."""
    return jnp.argsort(jnp.abs(params - 0.445))[None, :2]


def test_choices_that_flip_are_those_of_the_closed_form(found):
    down = -gradient(0)
    step = SETTINGS.step * np.sqrt(down.size) / np.linalg.norm(down)
    before, after = (
        set(np.asarray(nearest_two(trained(by * down, 0), None))[0].tolist()) for by in (0, step)
    )
    check = found[0].choices
    assert (check.step, check.choices) == (SETTINGS.step, 2)
    assert check.flipped == len(before - after) / 2 == 0.5
    (sentence,) = [
        said for name, said in summaries(plain(found[0].checks)).items() if name == "choices"
    ]
    assert sentence == "50% of 2 choices of experts flip over a search's step of 0.1"
    assert "choices" not in replace(found[0], choices=None).checks


def test_a_sound_training_is_green(found):
    certificate, told, predicted = found
    assert certificate.verdict == "green"
    assert certificate.causes == ()
    assert not any(work.further for work in told)
    assert sum(work.cost for work in told) == predicted


def test_differences_are_those_of_the_closed_form(found):
    check = found[0].differences
    assert {row.kind for row in check.rows} == {"random", "coordinate"}
    assert {row.epsilon for row in check.rows} == {EPSILONS[0]}
    exact = gradient(0).ravel()
    random = random_directions(8, 3, SETTINGS.seed)
    assert [row.name for row in check.rows[:3]] == ["random 1", "random 2", "random 3"]
    for row, direction in zip(check.rows, random, strict=False):
        assert row.derivative == pytest.approx(direction @ exact, rel=1e-12)
    largest = np.sort(np.abs(exact))[::-1][:3]
    np.testing.assert_allclose([abs(row.derivative) for row in check.rows[3:]], largest)
    for row in check.rows[3:]:
        window, parameter = index_of(row.name)
        assert row.derivative == pytest.approx(gradient(0)[window, parameter], rel=1e-12)
    for row in check.rows:
        assert abs(row.difference - row.derivative) <= 10 * row.epsilon**2 * abs(exact).max()
    assert check.sign_agreement == 1.0
    assert check.spearman == 1.0
    assert check.relative_error < 1e-5
    assert check.relative_noise < 1e-4


def index_of(name):
    assert name.startswith("rates[")
    return tuple(map(int, name.removeprefix("rates[").removesuffix("]").split(",")))


def test_the_other_estimator_agrees_to_rounding(found):
    assert found[0].agreement.other == "Forward"
    assert found[0].agreement.relative_error < 1e-12


def test_the_signal_is_that_of_the_closed_form(found):
    check = found[0].signal
    gradients = np.stack([gradient(seed) for seed in range(3)])
    mean, error = gradients.mean(0), gradients.std(0, ddof=1) / np.sqrt(3)
    tunable = check.tunables["rates"]
    assert tunable.whole.norm == pytest.approx(np.linalg.norm(mean) / np.linalg.norm(error))
    assert tunable.whole.coordinate == pytest.approx(np.median(np.abs(mean) / error))
    for window, strength in enumerate(tunable.windows):
        own = np.linalg.norm(mean[window]) / np.linalg.norm(error[window])
        assert strength.norm == pytest.approx(own)


def test_metasmoothness_is_that_of_the_closed_form(found):
    signs = (random_directions(8, 3, SETTINGS.seed)[0] * np.sqrt(8)).reshape(WINDOWS, 4)
    thetas = [trained(k * SETTINGS.step * signs, 0) for k in range(3)]
    assert found[0].metasmoothness.value == pytest.approx(moved(*thetas).smoothness)


def test_the_slopes_over_a_step_are_those_of_the_closed_form(found):
    check, exact = found[0].linearity, gradient(0).ravel()
    random, value = random_directions(8, 3, SETTINGS.seed), objective
    for direction, slope, derivative in zip(random, check.slopes, check.derivatives, strict=True):
        signs = (direction * np.sqrt(8)).reshape(WINDOWS, 4)
        above, below = (value(trained(s * SETTINGS.step * signs, 0), 0.0) for s in (1, -1))
        assert slope == pytest.approx(float(above - below) / (2 * SETTINGS.step * np.sqrt(8)))
        assert derivative == pytest.approx(direction @ exact, rel=1e-12)
    assert check.left == pytest.approx(1, abs=0.1)


def test_metasmoothness_weighs_parameters_by_how_far_they_move():
    at, beyond, further = np.array([[0, 0, 0], [1, 1, -1], [5, 0.5, -2.0]])
    assert moved(at, beyond, further).smoothness == pytest.approx((5 - 0.5 + 2) / 7.5)
    assert moved(at, -at, at).smoothness == 1
    assert moved(at, beyond, at).smoothness == -1
    assert np.isnan(moved(at, beyond, np.array([0, np.inf, 0])).smoothness)


def test_parameters_that_move_by_their_rounding_have_no_direction():
    at, eps = np.array([1.0, 100.0, 100.0]), 1e-7
    beyond, further = at + [1, 1e-5, -1e-5], at + [2, 0, 0]
    assert moved(at, beyond, further).resolved == 1
    found = moved(at, beyond, further + [0, 1e-5, 0], eps=eps)
    assert found.smoothness == 1
    assert found.resolved == pytest.approx(1, abs=1e-5)
    assert moved(at, at + 1e-7 * at, at, eps=eps) == (1.0, 0.0)


def test_shorter_horizons_have_the_signs_of_the_closed_form(found):
    check = found[0].horizons
    assert [row.steps for row in check.rows] == [STEPS // 4, STEPS // 2]
    assert all(row.tunables["rates"].share == 0 for row in check.rows)


def test_signs_that_change_with_the_horizon_are_red():
    # Parameters fall from 2 to their target and beyond: then faster is worse.
    target = 0.78
    certificate = checked(subject(target=target), SETTINGS)
    for row in certificate.horizons.rows:
        short = np.mean([gradient(s, row.steps, target) for s in range(3)], axis=0)
        long = np.mean([gradient(s, STEPS, target) for s in range(3)], axis=0)
        share = np.mean(np.sign(short) != np.sign(long))
        assert row.tunables["rates"].share == share
    assert certificate.horizons.rows[-1].tunables["rates"].share == 0.5
    assert certificate.horizons.finding == Finding("red", (HORIZON,))
    assert certificate.verdict == "red"
    assert HORIZON in certificate.causes


def test_a_stretch_is_compared_with_the_whole():
    # The first window acts in no step of the last quarter: half of the signs are zero there.
    whole = subject()
    check = checked(replace(whole, window=4, whole=whole), SETTINGS)
    assert check.differences.relative_error < 1e-5
    assert check.agreement.relative_error < 1e-12
    (row,) = check.horizons.rows
    assert (row.steps, check.horizons.steps) == (4, STEPS)
    assert row.tunables["rates"].share == 0.5


ALONG = {4: 0.5, 12: 0.25, STEPS: 0.25}


@pytest.mark.parametrize("window", [None, 8])
def test_an_objective_along_the_training_is_differenced_where_it_is_taken(window):
    """Points before the window count in the value alone."""
    along = replace(alone(MixFlow(segment=8)), points=lambda steps: ALONG, window=window)
    draw, losses = along.draw(0), []
    found = along.hypergradient(draw, "")
    held = FixedDraw(along, draw)

    def loss(eta, steps):
        rates = RATES[:, None] * np.exp(eta)
        first = min(steps, STEPS // 2)
        decays = (1 - rates * CURVATURES) ** np.array([[first], [steps - first]])
        return 1 + 0.5 * np.sum((np.prod(decays, axis=0) * start(0)) ** 2)

    random = random_directions(8, 3, seed=1)
    for direction in random:
        by = 1e-3 * direction
        # Rates of the first window act before what is differentiated, where there is one.
        moved = by.reshape(WINDOWS, 4) * np.array([[window is None], [True]])
        exact = sum(weight * loss(moved, steps) for steps, weight in ALONG.items())
        assert held.measured(by, "") == pytest.approx(exact, rel=1e-12)
        losses.append(exact)
    assert len(set(losses)) == 3
    at_once = sum(weight * loss(np.zeros((2, 4)), steps) for steps, weight in ALONG.items())
    assert float(found.value) == pytest.approx(at_once, rel=1e-12)
    assert error_of(along, held, sample(along, draw, ""), random) < 1e-5
    only_end = replace(along, points=lambda steps: {steps: 1.0})
    assert error_of(only_end, FixedDraw(only_end, draw), sample(along, draw, ""), random) > 0.1


def error_of(subject, held, sample, random):
    names = coordinate_names({"rates": (WINDOWS, 4)})
    slopes = measured_slopes(held, sample, random, names, 1e-16)
    return compared(rows(slopes, 1e-16), 1e-16).relative_error


@dataclass(frozen=True)
class Wrong:
    """MixFlow, multiplied coordinate by coordinate."""

    backward: ClassVar[bool] = True
    draws: ClassVar[bool] = False

    factors: tuple[float, ...]
    segment: int = 8

    def estimate(self, job: Any) -> Any:
        found = MixFlow(self.segment).estimate(job)
        flat, unflatten = ravel_pytree(found.gradient)
        return found._replace(gradient=unflatten(flat * np.array(self.factors)))


def flipped():
    largest = int(np.abs(gradient(0)).argmax())
    return tuple(-1.0 if i == largest else 1.0 for i in range(8))


@pytest.mark.parametrize("factors", [(1.5,) * 8, (-1.0,) * 8, flipped()])
def test_a_wrong_estimator_is_red(factors):
    certificate = checked(alone(Wrong(factors)), SETTINGS)
    assert certificate.verdict == "red"
    assert certificate.causes == (ESTIMATOR,)
    levels = {name: check.finding.level for name, check in certificate.checks.items()}
    assert levels.pop("differences") == levels.pop("agreement") == "red"
    assert set(levels.values()) == {"green"}
    if factors != (1.5,) * 8:
        assert certificate.differences.sign_agreement < 1


@pytest.mark.parametrize(
    "estimator",
    [
        Reverse(segment=8),
        Forward(segment=8),
        ForwardGradient(8, 8, "orthogonal"),
        ZerothOrder(8, 1e-3, 8, "orthogonal"),
    ],
)
def test_every_other_exact_estimator_is_green(estimator):
    certificate = checked(alone(estimator), SETTINGS)
    assert certificate.verdict == "green", certificate.causes
    assert certificate.agreement.relative_error < 1e-5


@pytest.mark.parametrize("count", [1, 4])
def test_sampling_errors_are_no_fault_but_leave_little_to_say(count):
    certificate = checked(alone(ForwardGradient(count, 8)), SETTINGS)
    assert certificate.agreement.relative_error > 0.1
    assert certificate.differences.finding.level != "red"
    assert certificate.agreement.finding.level != "red"
    if count == 1:
        assert certificate.differences.finding == unresolved(SAMPLING)
        assert as_json(certificate, {})["checks"]["differences"]["rows"][0]["error"] is None


def chaotic(rate):
    """Gradient descent in double wells at a rate where it is a chaotic cubic map."""

    def hyper_at(eta, step):
        return rate * jnp.exp(eta["rate"][step // 30, 0])

    return Subject(
        Problem(
            lambda params, hyper, batch: jnp.sum(params**4 / 4 - params**2 / 2) + 0.0 * batch,
            lambda grads, opt_state, params, hyper: (params - hyper * grads, opt_state),
            lambda params, batch: batch + jnp.mean(params**2),
            hyper_at,
        ),
        {"rate": jnp.zeros((2, 1))},
        lambda seed: Draw(
            State(1.3 + 0.01 * jax.random.normal(jax.random.key(seed), (50,)), ()),
            lambda step: np.float64(step),
            [np.float64(1.0)],
            jax.random.key(seed),
        ),
        60,
        MixFlow(segment=20),
    )


def test_a_chaotic_training_is_red_and_blames_the_learning_rate():
    certificate = checked(chaotic(1.7), Settings(seeds=2, directions=2, step=0.05))
    assert certificate.verdict == "red"
    assert certificate.causes == (LEARNING_RATE,)
    assert certificate.differences.finding.level == "red"
    assert certificate.metasmoothness.finding.level == "red"
    assert abs(certificate.metasmoothness.value) < 0.3


def test_a_training_that_diverges_is_red_and_blames_the_learning_rate():
    certificate = checked(chaotic(5.0), Settings(seeds=2, directions=2))
    assert certificate.causes == (LEARNING_RATE,)
    assert not certificate.training.finite_losses
    assert certificate.differences is certificate.signal is certificate.horizons is None
    assert as_json(certificate, {})["checks"]["training"]["objectives"] == [None, None]


def test_adam_without_eps_root_is_red_and_names_it():
    optimizer = optax.scale_by_adam(eps_root=0.0)
    params = jnp.array([1.0, 2.0, 3.0])

    def update(grads, opt_state, params, hyper):
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return params - hyper * updates, opt_state

    certificate = checked(
        Subject(
            Problem(
                # The last parameter has no gradient.
                lambda params, hyper, batch: (
                    jnp.sum(jnp.array([1, 1, 0]) * params**2) + 0.0 * batch
                ),
                update,
                lambda params, batch: batch + jnp.sum(params**2),
                lambda eta, step: 0.1 * jnp.exp(eta["rate"]),
            ),
            {"rate": jnp.zeros(())},
            lambda seed: Draw(
                State(params, optimizer.init(params)),
                lambda step: np.float64(step),
                [np.float64(1.0)],
                jax.random.key(seed),
            ),
            6,
            MixFlow(segment=6),
        ),
        Settings(seeds=2, directions=1),
    )
    assert certificate.training.finite_losses
    assert not certificate.training.finite_gradients
    assert certificate.causes == (EPS_ROOT,)
    assert certificate.metasmoothness.finding.level == "green"


def test_seeds_that_share_nothing_have_no_signal():
    quiet = subject()
    noisy = replace(
        quiet,
        problem=replace(
            quiet.problem, objective=lambda params, batch: 1e3 + jnp.sum(params * batch)
        ),
        draw=lambda seed: quiet.draw(seed)._replace(
            outer_batches=[np.random.default_rng(seed).normal(size=4)]
        ),
        shorter=lambda steps: None,
    )
    certificate = checked(noisy, Settings(seeds=6, directions=2))
    assert certificate.signal.tunables["rates"].whole.norm < 1.5
    assert certificate.signal.finding == Finding("red", (NOISE,))
    assert certificate.causes == (NOISE,)
    assert certificate.differences.finding.level == "green"
    assert certificate.horizons.rows == ()


def test_levels():
    assert [graded(x, 1, 2, "why").level for x in (1, 1.5, 2, 2.5)] == [
        "green",
        "amber",
        "amber",
        "red",
    ]
    assert graded(float("nan"), 1, 2, "why") == Finding("red", ("why",))
    assert worst(()).level == "green"
    assert worst([Finding("amber", ("a",)), Finding("amber", ("b",))]).causes == ("a",)


def test_numbers_that_are_none_become_null():
    assert plain({"a": (1.0, float("inf")), "b": Finding("red", ("c",))}) == {
        "a": [1.0, None],
        "b": {"level": "red", "causes": ["c"], "hidden": False},
    }
