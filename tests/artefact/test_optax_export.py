import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metatune.artefact import LearningRates, Optimizer
from metatune.artefact.exporters import export

STEPS = 20
NAMES = ("model.embed.weight", "model.layers.0.weight", "model.norm.weight")
PLAIN = {"kind": "sgd", "weight_decay": 0.0, "momentum": 0.0, "nesterov": False, "clip_norm": None}


@pytest.fixture
def exported(make, tmp_path, load_module):
    def build(**changes):
        artefact = make(NAMES, STEPS, **changes)
        export(artefact, "optax", tmp_path / "out", overwrite=True)
        return artefact, load_module(tmp_path / "out")

    return build


@pytest.fixture
def params():
    random = np.random.default_rng(1)
    return {name: jnp.asarray(random.normal(size=(3, 2)), jnp.float32) for name in NAMES}


def run(optimizer, params, gradients):
    """Trains as a user does, by a jitted update; gives the parameters after each update."""
    state, history = optimizer.init(params), []

    @jax.jit
    def step(params, state, gradient):
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    for gradient in gradients:
        params, state = step(params, state, gradient)
        history.append(params)
    return history


def random_gradients(params, count):
    random = np.random.default_rng(2)
    return [
        {k: jnp.asarray(random.normal(size=p.shape), p.dtype) for k, p in params.items()}
        for _ in range(count)
    ]


def test_plain_sgd_moves_each_parameter_by_its_own_rate(exported, params):
    artefact, module = exported(settings=PLAIN)
    gradients = random_gradients(params, STEPS)
    history = run(module.optimizer(STEPS), params, gradients)
    before = params
    for t, (after, gradient) in enumerate(zip(history, gradients, strict=True)):
        for name in NAMES:
            rate = artefact.learning_rates.parameters[name][t]
            expected = np.float64(before[name]) - rate * np.float64(gradient[name])
            np.testing.assert_allclose(after[name], expected, rtol=1e-5, atol=1e-6)
        before = after


def test_momentum_decay_and_clipping_by_hand(exported, params):
    settings = {
        "kind": "sgd",
        "weight_decay": 0.1,
        "momentum": 0.5,
        "nesterov": True,
        "clip_norm": 1.0,
    }
    artefact, module = exported(settings=settings)
    gradients = random_gradients(params, 5)
    history = run(module.optimizer(STEPS), params, gradients)
    theta = {name: np.float64(p) for name, p in params.items()}
    trace = {name: np.zeros((3, 2)) for name in NAMES}
    for t, gradient in enumerate(gradients):
        norm = np.sqrt(sum(np.sum(np.float64(g) ** 2) for g in gradient.values()))
        for name in NAMES:
            g = np.float64(gradient[name]) / max(1.0, norm)
            g = g + 0.1 * theta[name] * (name == NAMES[0])
            trace[name] = 0.5 * trace[name] + g
            rate = artefact.learning_rates.parameters[name][t]
            theta[name] = theta[name] - rate * (g + 0.5 * trace[name])
            np.testing.assert_allclose(history[t][name], theta[name], rtol=1e-5, atol=1e-6)


def test_adamw_by_hand(exported, params):
    artefact, module = exported()
    gradients = random_gradients(params, 5)
    history = run(module.optimizer(STEPS), params, gradients)
    theta = {name: np.float64(p) for name, p in params.items()}
    m = {name: np.zeros((3, 2)) for name in NAMES}
    v = {name: np.zeros((3, 2)) for name in NAMES}
    for t, gradient in enumerate(gradients):
        norm = np.sqrt(sum(np.sum(np.float64(g) ** 2) for g in gradient.values()))
        for name in NAMES:
            g = np.float64(gradient[name]) / max(1.0, norm)
            m[name] = 0.9 * m[name] + 0.1 * g
            v[name] = 0.95 * v[name] + 0.05 * g**2
            root = np.sqrt(v[name] / (1 - 0.95 ** (t + 1)) + 1e-12) + 1e-8
            step = m[name] / (1 - 0.9 ** (t + 1)) / root
            step = step + 0.1 * theta[name] * (name == NAMES[0])
            theta[name] = theta[name] - artefact.learning_rates.parameters[name][t] * step
            np.testing.assert_allclose(history[t][name], theta[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("interpolation", ["constant", "linear"])
def test_schedules_agree_with_the_artefact(exported, interpolation):
    rates = LearningRates(
        (0.0, 0.1, 1 / 3, 0.7),
        interpolation,
        {name: np.array([1.0, 2.0, 0.5, 4.0]) * (i + 1) for i, name in enumerate(NAMES)},
    )
    artefact, module = exported(learning_rates=rates)
    for total in (3, 20, 93):
        built = module.schedules(total)
        assert list(built) == list(NAMES)
        for name, schedule in built.items():
            schedule = jax.jit(schedule)
            found = [float(schedule(jnp.int32(t))) for t in range(total + 2)]
            expected = [artefact.learning_rate(name, t, total) for t in range(total + 2)]
            np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("interpolation", ["constant", "linear"])
def test_every_rate_of_every_update_comes_back(exported, interpolation, float64):
    artefact, module = exported()
    rates = dataclasses.replace(artefact.learning_rates, interpolation=interpolation)
    artefact, module = exported(learning_rates=rates)
    for total in (STEPS, 7, 1000):
        steps = jnp.arange(total)
        for name, schedule in module.schedules(total).items():
            found = jax.vmap(schedule)(steps)
            expected = [artefact.learning_rate(name, t, total) for t in range(total)]
            np.testing.assert_allclose(found, expected, rtol=1e-7)


def test_constant_rates_come_back_in_single_precision(exported):
    artefact, module = exported()
    for name, schedule in module.schedules(1000).items():
        found = jax.vmap(schedule)(jnp.arange(1000))
        expected = [artefact.learning_rate(name, t, 1000) for t in range(1000)]
        # Rounding to float32 is 6e-8.
        np.testing.assert_allclose(np.float64(found), expected, rtol=1e-7)


def test_equal_curves_share_a_label_in_flat_and_nested_trees(exported, params):
    curve = np.array([0.1, 0.2])
    rates = LearningRates((0.0, 0.5), "constant", {NAMES[0]: curve, NAMES[1]: 2 * curve})
    rates = dataclasses.replace(rates, parameters={**rates.parameters, NAMES[2]: curve})
    _, module = exported(learning_rates=rates)
    assert module.labels(params) == dict(zip(NAMES, (NAMES[0], NAMES[1], NAMES[0]), strict=True))
    nested = {
        "model": {
            "embed": {"weight": params[NAMES[0]]},
            "layers": {"0": {"weight": params[NAMES[1]]}},
            "norm": {"weight": params[NAMES[2]]},
        }
    }
    assert module.labels(nested)["model"]["norm"]["weight"] == NAMES[0]
    assert list(module.schedules(STEPS)) == [NAMES[0], NAMES[1]]
    flat = random_gradients(params, 2)
    deep = [jax.tree.unflatten(jax.tree.structure(nested), jax.tree.leaves(g)) for g in flat]
    flat_end = run(module.optimizer(STEPS), params, flat)[-1]
    deep_end = run(module.optimizer(STEPS), nested, deep)[-1]
    for a, b in zip(jax.tree.leaves(flat_end), jax.tree.leaves(deep_end), strict=True):
        np.testing.assert_array_equal(a, b)


def test_unmatched_parameters_are_listed_on_both_sides(exported, params, tmp_path):
    _, module = exported()
    params["model.layers.0.kernel"] = params.pop("model.layers.0.weight")
    with pytest.raises(ValueError) as caught:
        module.optimizer(STEPS).init(params)
    assert str(caught.value) == (
        f"1 parameters have no curve in {tmp_path / 'out' / 'tuned.json'}:\n"
        "  model.layers.0.kernel (nearest: model.layers.0.weight)\n"
        "1 curves have no parameter:\n"
        "  model.layers.0.weight\n"
        "Give the parameters the names of the checkpoint, or map them (checkpoint_name)."
    )


def test_names_of_a_module_may_be_mapped(exported, params):
    """Flax calls a weight `kernel`; weight decay, too, goes by the checkpoint's name."""
    artefact, module = exported()
    flax = {name.replace(".weight", ".kernel"): p for name, p in params.items()}
    own = module.optimizer(STEPS)
    mapped = module.optimizer(STEPS, checkpoint_name=lambda n: n.replace(".kernel", ".weight"))
    ones, theirs = (jax.tree.map(jnp.ones_like, tree) for tree in (params, flax))
    updates, _ = own.update(ones, own.init(params), params)
    renamed, _ = mapped.update(theirs, mapped.init(flax), flax)
    for name, update in updates.items():
        np.testing.assert_array_equal(renamed[name.replace(".weight", ".kernel")], update)


def test_a_curve_without_a_parameter_is_refused(exported, params):
    _, module = exported()
    del params["model.layers.0.weight"]
    with pytest.raises(ValueError, match=r"1 curves have no parameter:\n  model.layers.0.weight"):
        module.optimizer(STEPS).init(params)


def test_targets_of_minus_100_have_no_loss(exported):
    _, module = exported()
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(1, 3, 5)), jnp.float32)
    losses = module.token_losses(logits, jnp.asarray([[2, -100, 4]]), 0, STEPS)
    expected = module.token_losses(logits, jnp.asarray([[2, 0, 4]]), 0, STEPS)
    np.testing.assert_array_equal(losses[0, [0, 2]], expected[0, [0, 2]])
    assert losses[0, 1] == 0


def test_shares_and_loss_weights(exported, tmp_path):
    artefact, module = exported()
    for step in range(30):
        for function, expected in (
            (module.mixture, artefact.mixture_at(step, 33)),
            (module.loss_weights, artefact.loss_weights_at(step, 33)),
        ):
            found = function(step, 33)
            assert list(found) == list(expected)
            np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-12)
        assert abs(sum(module.mixture(step, 33).values()) - 1) < 1e-12


def test_errors_say_what_to_do(exported, tmp_path):
    _, module = exported(mixture=None, optimizer=Optimizer(PLAIN, ()))
    path = re.escape(str(tmp_path / "out" / "tuned.json"))
    with pytest.raises(ValueError, match=rf"^{path}: holds no mixture; tune it"):
        module.mixture(0, STEPS)
    with pytest.raises(ValueError, match="step 0 of 0: steps count from 0, totals from 1"):
        module.loss_weights(0, 0)
    with pytest.raises(ValueError, match="total_steps 0: a training has at least one update"):
        module.schedules(0)
    other = tmp_path / "other.json"
    other.write_text('{"format": "metatune-artefact", "version": 9}')
    with pytest.raises(ValueError, match=r"must be \('metatune-artefact', 1\), is .*; export it"):
        module.schedules(STEPS, path=other)
