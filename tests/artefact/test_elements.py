"""Rates within parameters: in the format, in Optax and PyTorch, and for targets without them."""

import dataclasses
import json
from importlib import resources
from typing import Any

import jax
import jax.numpy as jnp
import jsonschema
import numpy as np
import optax
import pytest
from safetensors.numpy import load_file, save_file

from metatune import api
from metatune.artefact import ArtefactError, ElementFactors, LearningRates, Optimizer, load, write
from metatune.artefact.capabilities import asked
from metatune.artefact.document import curves as curves_of
from metatune.artefact.exporters import EXPORTERS, export
from metatune.artefact.horizon import base_rates, carried
from metatune.artefact.writing import sha256
from metatune.report.artefact_readme import what_is_tuned
from metatune.report.pictures.schedules import schedule_svg
from metatune.report.terminal import summary

STEPS = 8
SHAPES = {"up.weight": (3, 2), "down.weight": (2, 3), "up.bias": (3,)}
BLOCKS = {"up.weight": (3, 2), "down.weight": (1, 3), "up.bias": (3,)}
KINDS = {
    "adamw": {"weight_decay": 0.1, "b1": 0.9, "b2": 0.95, "eps": 1e-8, "eps_root": 0.0},
    "sgd": {"weight_decay": 0.1, "momentum": 0.5, "nesterov": False},
}


@pytest.fixture(params=["constant", "linear"])
def artefact(request, make):
    return with_elements(make, request.param)


def with_elements(make, interpolation: Any = "constant", kind="adamw"):
    random = np.random.default_rng(5)
    knots = (0.0, 0.4, 0.8)
    factors = {
        name: random.uniform(0.2, 5, (len(knots), *block)).astype(np.float32)
        for name, block in BLOCKS.items()
    }
    curve = np.array([0.01, 0.04, 0.02])
    rates = LearningRates(
        (0.0, 0.25, 0.5),
        "constant",
        dict.fromkeys(BLOCKS, curve),
        elements=ElementFactors(knots, interpolation, factors),
    )
    settings = {"kind": kind, **KINDS[kind], "clip_norm": None}
    return make(
        BLOCKS,
        STEPS,
        learning_rates=rates,
        optimizer=Optimizer(settings, ("up.weight", "down.weight")),
        mixture=None,
        loss_weights=None,
    )


def same(a, b):
    assert (a.knots, a.interpolation, set(a.parameters)) == (
        b.knots,
        b.interpolation,
        set(b.parameters),
    )
    for name, factors in a.parameters.items():
        assert factors.dtype == b.parameters[name].dtype == np.float32
        np.testing.assert_array_equal(factors, b.parameters[name])


def test_every_factor_comes_back(artefact, tmp_path):
    write(tmp_path / "a", artefact, "")
    text = (resources.files("metatune.artefact") / "schema.json").read_text()
    document = json.loads((tmp_path / "a" / "tuned.json").read_text())
    jsonschema.validate(document, json.loads(text))
    assert document["learning_rates"]["elements"]["shapes"]["down.weight"] == [1, 3]
    read = load(tmp_path / "a")
    same(read.learning_rates.elements, artefact.learning_rates.elements)
    del document["tensors"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, json.loads(text))


def test_the_rate_of_an_element_is_the_parameter_s_times_its_factor(artefact):
    elements, curve = artefact.learning_rates.elements, artefact.learning_rates.parameters
    along = 0.25 / 0.4 if elements.interpolation == "linear" else 0.0
    for name, factors in elements.parameters.items():
        want = curve[name][1] * ((1 - along) * factors[0] + along * factors[1])
        np.testing.assert_allclose(artefact.learning_rate(name, 2, STEPS), want, rtol=1e-6)
        assert artefact.learning_rate(name, 2, STEPS).shape == BLOCKS[name]
    with pytest.raises(ArtefactError, match="rates were tuned within parameters"):
        artefact.rates_at(0, STEPS)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda held: held.pop("up.bias"), "must hold 'up.bias'"),
        (
            lambda held: held.update({"up.bias": held["up.bias"].astype(np.float64)}),
            "learning_rates.elements.up.bias = 'float64 [3, 3]': must be float32 [3, 3]",
        ),
        (
            lambda held: held.update({"up.bias": -held["up.bias"]}),
            "must be a finite number of 0 or above",
        ),
    ],
    ids=["missing", "type", "negative"],
)
def test_what_is_wrong_with_the_factors_is_said(make, tmp_path, edit, change, problem):
    write(tmp_path / "a", with_elements(make), "")
    beside = tmp_path / "a" / "tuned.safetensors"
    held = load_file(beside)
    change(held)
    save_file(held, beside)
    digest = sha256(beside.read_bytes())
    edit(tmp_path / "a" / "tuned.json", "tensors", "sha256", to=digest, sign=True)
    with pytest.raises(ArtefactError) as caught:
        load(tmp_path / "a")
    assert problem in str(caught.value)


def test_a_document_with_factors_names_every_parameter_and_the_file(make, tmp_path, edit):
    write(tmp_path / "a", with_elements(make), "")
    file = tmp_path / "a" / "tuned.json"
    edit(file, "learning_rates", "elements", "shapes", to={"up.bias": [0]}, sign=True)
    with pytest.raises(ArtefactError) as caught:
        load(file)
    assert "shapes = ['up.bias']: must have every parameter" in str(caught.value)
    assert "shapes.up.bias[0] = 0: must be a whole number" in str(caught.value)
    edit(file, "tensors", to=KeyError, sign=True)
    with pytest.raises(ArtefactError, match="tensors: must be there if, and only if"):
        load(file)


@pytest.mark.parametrize("target", EXPORTERS)
def test_targets_without_them_refuse_or_take_the_means(make, tmp_path, target):
    artefact = with_elements(make, "linear")
    assert asked(artefact)["elements"] == "12 learning rates within parameters (else their means)"
    if EXPORTERS[target].capabilities["elements"] == "exact":
        assert not export(artefact, target, tmp_path / "out", sequences_per_step=2048).dropped
        assert (tmp_path / "out" / "tuned.safetensors").is_file()
        same(load(tmp_path / "out").learning_rates.elements, artefact.learning_rates.elements)
        assert "within parameters" in (tmp_path / "out" / "README.md").read_text()
        return
    with pytest.raises(ArtefactError, match="elements = .*can't express it: 12 learning rates"):
        export(artefact, target, tmp_path / "out", sequences_per_step=2048)
    done = export(artefact, target, tmp_path / "out", lossy=True, sequences_per_step=2048)
    assert done.dropped[0] == asked(artefact)["elements"]
    read = load(tmp_path / "out").learning_rates
    assert read.elements is None
    for name in BLOCKS:
        for step in range(STEPS):
            want = np.mean(artefact.learning_rate(name, step, STEPS))
            got = load(tmp_path / "out").learning_rate(name, step, STEPS)
            assert got == pytest.approx(want, rel=1e-6)


def test_means_and_quantiles_have_the_recipe_s_base_schedule(artefact):
    rates = artefact.learning_rates
    for collapsed in (rates.averaged(STEPS), rates.summarised(STEPS)):
        whole = dataclasses.replace(artefact, learning_rates=collapsed)
        steps = np.round(np.array(whole.learning_rates.knots) * STEPS).astype(int)
        want = [artefact.learning_rates.parameters["up.bias"][min(t // 2, 2)] for t in steps]
        np.testing.assert_allclose(base_rates(whole), want, rtol=1e-12)
    curves = curves_of(artefact, range(STEPS))["learning_rates"]
    assert list(curves)[:3] == ["up.weight 10 %", "up.weight median", "up.weight 90 %"]
    medians = np.median(artefact.learning_rate("up.weight", 0, STEPS))
    assert curves["up.weight median"][0] == pytest.approx(medians, rel=1e-6)


def test_reports_show_quantiles(artefact):
    result = {
        "status": "unfinished",
        "outer_steps": 1,
        "best_outer_step": 0,
        "standard_error": None,
        "difference": None,
    }
    artefact = dataclasses.replace(artefact, result=result)
    assert what_is_tuned(artefact)[0].startswith(
        "learning rates: 12 multipliers within 3 parameters, "
    )
    assert "up.weight 90 %" in schedule_svg(artefact, "title")
    assert summary(artefact, []) is not None


@pytest.mark.parametrize("interpolation", ["constant", "linear"])
def test_a_warmup_in_steps_takes_the_factors_along(make, interpolation):
    artefact = with_elements(make, interpolation)  # it warms up over two updates
    moved = carried(artefact, 14, "steps")
    for step in range(14):
        then = step if step <= 2 else 2 + (step - 2) / 2
        if then % 1 == 0:
            for name in BLOCKS:
                np.testing.assert_allclose(
                    moved.learning_rate(name, step, 14),
                    artefact.learning_rate(name, int(then), STEPS),
                    rtol=1e-5,
                )


def gradients_of(params, count):
    random = np.random.default_rng(3)
    return [
        {name: random.normal(size=shape) for name, shape in SHAPES.items()} for _ in range(count)
    ]


def by_hand(artefact, params, gradients):
    """The training as it was tuned, in NumPy: `θ' = θ - rate * direction`."""
    settings = artefact.optimizer.settings
    params, m, v = dict(params), dict.fromkeys(SHAPES, 0.0), dict.fromkeys(SHAPES, 0.0)
    for t, gradient in enumerate(gradients):
        for name, g in gradient.items():
            decay = settings["weight_decay"] * params[name] * (name in artefact.optimizer.decayed)
            if settings["kind"] == "sgd":
                m[name] = 0.5 * m[name] + g + decay
                direction = m[name]
            else:
                m[name], v[name] = 0.9 * m[name] + 0.1 * g, 0.95 * v[name] + 0.05 * g**2
                root = np.sqrt(v[name] / (1 - 0.95 ** (t + 1))) + 1e-8
                direction = m[name] / (1 - 0.9 ** (t + 1)) / root + decay
            params[name] = params[name] - artefact.learning_rate(name, t, STEPS) * direction
    return params


def start():
    random = np.random.default_rng(2)
    return {name: random.normal(size=shape) for name, shape in SHAPES.items()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("interpolation", ["constant", "linear"])
def test_optax_and_pytorch_train_as_it_was_tuned(make, float64, kind, interpolation):
    import torch

    artefact = with_elements(make, interpolation, kind)
    tuned, params = api.Tuned(artefact), start()
    gradients = gradients_of(params, STEPS)
    want = by_hand(artefact, params, gradients)

    optimizer = tuned.optax()
    found: Any = jax.tree.map(jnp.asarray, params)
    state = optimizer.init(found)
    step = jax.jit(optimizer.update)
    for gradient in gradients:
        updates, state = step(jax.tree.map(jnp.asarray, gradient), state, found)
        found = optax.apply_updates(found, updates)
    for name in SHAPES:
        np.testing.assert_allclose(found[name], want[name], rtol=1e-7)

    held = {name: torch.nn.Parameter(torch.tensor(value)) for name, value in params.items()}
    groups = tuned.torch_param_groups(Named(held))
    if kind == "adamw":
        built = torch.optim.AdamW(groups)
    else:
        built = torch.optim.SGD(groups)
    schedule = tuned.torch_scheduler(built)
    for gradient in gradients:
        for name, value in gradient.items():
            held[name].grad = torch.tensor(value)
        built.step()
        schedule.step()
    for name in SHAPES:
        np.testing.assert_allclose(held[name].detach().numpy(), want[name], rtol=1e-7)


class Named:
    """What of a module is asked for: its parameters by name."""

    def __init__(self, parameters):
        self._parameters = parameters

    def named_parameters(self, remove_duplicate=True):
        return self._parameters.items()


def test_pytorch_says_what_it_can_not_scale(make):
    import torch

    tuned = api.Tuned(with_elements(make))
    held = {name: torch.nn.Parameter(torch.tensor(value)) for name, value in start().items()}
    optimizer = torch.optim.AdamW(tuned.torch_param_groups(Named(held)))
    tuned.torch_scheduler(optimizer)
    with pytest.raises(ValueError, match="a closure would see no parameters"):
        optimizer.step(lambda: 0.0)
    with pytest.raises(ValueError, match="optimizer Adagrad: must be AdamW or SGD"):
        tuned.torch_scheduler(torch.optim.Adagrad(tuned.torch_param_groups(Named(held))))
    held["up.bias"] = torch.nn.Parameter(torch.zeros(2))
    with pytest.raises(ValueError, match=r"up.bias: factors \[3\] in .*but the parameter is \[2\]"):
        tuned.torch_scheduler(torch.optim.AdamW(tuned.torch_param_groups(Named(held))))


def test_optax_says_what_does_not_fit(make):
    tuned = api.Tuned(with_elements(make))
    params = {**start(), "up.bias": np.zeros(2)}
    with pytest.raises(ValueError, match=r"up.bias: factors \[3\] in .*but the parameter is \[2\]"):
        tuned.optax().init(params)
