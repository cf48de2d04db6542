"""Hypergradients of learning rates of every grain, against central differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cells import cells

from metatune.hypergrad import MixFlow, Problem, State, hypergradient
from metatune.models import ParameterNames
from metatune.recipe import schema
from metatune.tunables import Hyper, Setting
from metatune.tunables.learning_rates import build

STEPS = 5
NAMES = {
    "embed": ParameterNames(("model.embed_tokens.weight",), stacked=False),
    "up": ParameterNames(("layers.0.mlp.up.weight", "layers.1.mlp.up.weight"), True, True),
    "norm": ParameterNames(("layers.0.norm.weight", "layers.1.norm.weight"), True),
}
SHAPES = {"embed": (3, 4), "up": (2, 4, 4), "norm": (2, 4)}


def loss(params, hyper, batch):
    x = params["embed"][batch["tokens"]]
    for matrix, scale in zip(params["up"], params["norm"], strict=True):
        x = x + jnp.tanh((x * scale[None, :]) @ matrix)
    return jnp.mean((x - batch["wanted"]) ** 2)


def update(grads, trace, params, hyper):
    """SGD with momentum."""
    trace = jax.tree.map(lambda m, g: 0.5 * m + g, trace, grads)
    rates = hyper.learning_rate
    return jax.tree.map(lambda p, m, rate: p - rate * m, params, trace, rates), trace


def objective(params, batch):
    return loss(params, None, batch)


def batch_of(step):
    random = np.random.default_rng(step)
    return {"tokens": random.integers(0, 3, 6), "wanted": random.normal(size=(6, 4))}


SPECS = {
    "global": {"per": "global", "windows": 2},
    "kind, at most twice": {"per": "kind", "windows": 2, "max_multiplier": 2.0},
    "layer and kind": {"per": "layer_kind"},
    "groups, on lines": {"per": ("up", "norm"), "windows": 2, "interpolation": "linear"},
    "row": {"per": "row", "windows": 2},
    "column, on lines, at most thrice": {
        "per": "column",
        "windows": 3,
        "interpolation": "linear",
        "max_multiplier": 3.0,
    },
    "element, on lines": {"per": "element", "windows": 2, "interpolation": "linear"},
    "element": {"per": "element"},
}
FURTHER = {"global", "kind, at most twice", "layer and kind", "element"}
"""Of those that stay each is a way to share, and two have lines and a bound."""


@pytest.mark.parametrize("spec", cells(SPECS, FURTHER))
def test_they_equal_central_differences(spec, float64):
    random = np.random.default_rng(0)
    params = {key: jnp.asarray(random.normal(size=shape)) for key, shape in SHAPES.items()}
    setting = Setting(NAMES, (), STEPS, params)
    tunable = build(schema.LearningRatesSpec(**spec), setting)

    def hyper_at(eta, step):
        base = jax.tree.map(lambda p: jnp.full((1,) * p.ndim, 0.05), params)
        return tunable.apply(eta, step, Hyper(base, jnp.ones(1), jnp.ones(1)))

    problem = Problem(loss, update, objective, hyper_at)
    state = State(params, jax.tree.map(jnp.zeros_like, params))

    def estimate(eta):
        return hypergradient(
            problem, eta, state, batch_of, [batch_of(99)], steps=STEPS, estimator=MixFlow(segment=2)
        )

    eta = jnp.asarray(random.normal(size=tunable.initial().shape))
    found = np.asarray(estimate(eta).gradient)
    assert found.shape == eta.shape
    for direction in random.normal(size=(2, *eta.shape)):
        sides = [float(estimate(eta + sign * 1e-5 * direction).value) for sign in (1, -1)]
        assert np.vdot(found, direction) == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-5)


@pytest.mark.parametrize("max_multiplier", [None, 2.5])
def test_the_penalty_has_its_gradient(max_multiplier, float64):
    spec = schema.LearningRatesSpec(
        per="row", windows=3, max_multiplier=max_multiplier, smoothness=0.7, prior=0.2
    )
    params = {key: jnp.zeros(shape) for key, shape in SHAPES.items()}
    tunable = build(spec, Setting(NAMES, (), STEPS, params))
    eta = np.random.default_rng(0).normal(size=tunable.initial().shape)
    logs = np.log(tunable.multipliers(eta))
    want = 0.2 * np.mean(logs**2) + 0.7 * np.mean((logs[1:] - logs[:-1]) ** 2)
    assert float(tunable.penalty(jnp.asarray(eta))) == pytest.approx(want, rel=1e-12)
    assert float(tunable.penalty(tunable.initial())) == 0
    gradient = jax.grad(tunable.penalty)(jnp.asarray(eta))
    direction = np.random.default_rng(1).normal(size=eta.shape)
    sides = [float(tunable.penalty(jnp.asarray(eta + s * 1e-6 * direction))) for s in (1, -1)]
    slope = (sides[0] - sides[1]) / 2e-6
    assert float(np.vdot(gradient, direction)) == pytest.approx(slope, rel=1e-6)
