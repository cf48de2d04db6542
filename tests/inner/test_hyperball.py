"""AdamH and MuonH against the equations of Levanter's `adamH` and `muonH`, in NumPy.

Those are of marin-community/marin, lib/levanter/src/levanter/optim/adamh.py and muonh.py, as of
commits 00843426 and 05422e24.
"""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metatune.inner import hyperball, optimizers
from metatune.models import ParameterNames
from metatune.recipe import schema
from metatune.tunables import Hyper

STEPS, B1, B2, EPS, ROOT, MOMENTUM = 5, 0.9, 0.95, 1e-3, 1e-12, 0.95
RATES = {"embed": 0.01, "layers": {"up": 0.02, "bias": 0.03}, "lm_head": {"weight": 0.04}}
LAYERS = tuple(f"layers.{layer}" for layer in range(2))
NAMES = {
    "embed": ParameterNames(("embed.weight",), stacked=False),
    "layers": {
        "up": ParameterNames(tuple(f"{layer}.up.weight" for layer in LAYERS), stacked=True),
        "bias": ParameterNames(tuple(f"{layer}.up.bias" for layer in LAYERS), stacked=True),
    },
    "lm_head": {"weight": ParameterNames(("lm_head.weight",), stacked=False)},
}
SHAPES = {
    "embed": (5, 4),
    "layers": {"up": (2, 6, 4), "bias": (2, 6)},
    "lm_head": {"weight": (5, 4)},
}
SPECS = {
    "adamh": schema.AdamHSpec(1.0, eps=EPS, eps_root=ROOT, clip_norm=None),
    "muonh": schema.MuonHSpec(1.0, eps=EPS, eps_root=ROOT, clip_norm=None),
    "muonh, no nesterov": schema.MuonHSpec(
        1.0, nesterov=False, eps=EPS, eps_root=ROOT, clip_norm=None
    ),
}


def drawn(seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda shape: rng.normal(size=shape), SHAPES, is_leaf=lambda node: isinstance(node, tuple)
    )


def trained(spec, start, gradients, names=NAMES, rates=RATES):
    """The parameters after each update."""
    built = optimizers.build(spec, names)
    params = jax.tree.map(jnp.asarray, start)
    wide = jax.tree.map(lambda rate, p: jnp.full((1,) * p.ndim, rate), rates, params)
    state, update, found = built.init(params), jax.jit(built.update), []
    for gradient in gradients:
        gradient = jax.tree.map(jnp.asarray, gradient)
        params, state = update(gradient, state, params, Hyper(wide, jnp.ones(1), jnp.ones(1)))
        found.append(jax.tree.map(np.asarray, params))
    return found


def adam(own, g, count):
    own.m = B1 * own.m + (1 - B1) * g
    own.v = B2 * own.v + (1 - B2) * g**2
    m, v = own.m / (1 - B1**count), own.v / (1 - B2**count)
    return m / (np.sqrt(v + ROOT) + EPS)


def muon(own, g, nesterov):
    own.m = MOMENTUM * own.m + g
    u = MOMENTUM * own.m + g if nesterov else own.m
    x = u / (np.linalg.norm(u) + EPS)
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x


def sphere(w, u, rate):
    between = w - rate * u * np.linalg.norm(w) / np.linalg.norm(u)
    return between / np.linalg.norm(between) * np.linalg.norm(w)


def by_hand(name, start, gradients, key, layer, rate):
    """One tensor, of one layer, after all updates."""

    def at(tree):
        for part in key:
            tree = tree[part]
        return tree if layer is None else tree[layer]

    w = at(start)
    own = SimpleNamespace(m=np.zeros_like(w), v=np.zeros_like(w))
    for count, gradient in enumerate(gradients, start=1):
        if key == ("layers", "up") and name != "adamh":
            u = muon(own, at(gradient), nesterov=name == "muonh")
        else:
            u = adam(own, at(gradient), count)
        keeps = key[-1] in ("up", "weight")
        w = sphere(w, u, rate) if keeps else w - rate * u
    return w


@pytest.mark.parametrize("name", SPECS)
def test_it_is_that_of_levanter(float64, name):
    start, gradients = drawn(0), [drawn(seed) for seed in range(1, STEPS + 1)]
    end = trained(SPECS[name], start, gradients)[-1]
    for key, layers in (
        (("embed",), [None]),
        (("layers", "up"), [0, 1]),
        (("layers", "bias"), [0, 1]),
        (("lm_head", "weight"), [None]),
    ):
        rate, found = RATES, end
        for part in key:
            rate, found = rate[part], found[part]
        for layer in layers:
            want = by_hand(name, start, gradients, key, layer, rate)
            got = found if layer is None else found[layer]
            np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-13, err_msg=str(key))


@pytest.mark.parametrize("name", ["adamh", "muonh"])
def test_matrices_keep_their_norm_at_any_rate(name):
    start, gradients = drawn(0), [drawn(seed) for seed in range(1, STEPS + 1)]
    start["layers"]["up"][1] = 0  # stays
    large = jax.tree.map(lambda rate: 10 * rate, RATES)
    as_float = jax.tree.map(np.float32, start)
    for params in trained(SPECS[name], as_float, gradients, rates=large):
        for found, begun in (
            (params["layers"]["up"][0], start["layers"]["up"][0]),
            (params["lm_head"]["weight"], start["lm_head"]["weight"]),
        ):
            assert np.linalg.norm(found) == pytest.approx(np.linalg.norm(begun), rel=1e-6)
            assert np.linalg.norm(found - begun) > 0.1
        assert not params["layers"]["up"][1].any()


@pytest.mark.parametrize("spec", [schema.AdamHSpec(1.0), schema.MuonHSpec(1.0)])
def test_only_what_changes_its_norm_decays(spec):
    shapes = jax.tree.map(jnp.asarray, drawn(0))
    assert optimizers.decayed(spec, NAMES, shapes) == ("embed.weight",)
    everything = type(spec)(1.0, decay="all")
    biases = tuple(f"{layer}.up.bias" for layer in LAYERS)
    assert set(optimizers.decayed(everything, NAMES, shapes)) == {"embed.weight", *biases}


def test_experts_of_one_tensor_are_not_matrices_that_keep_their_norm():
    """Their biases [layers, experts, out] have as many axes as a matrix of the blocks."""
    names = tuple(f"layers.{layer}.experts" for layer in range(2))
    leaves = {
        "one by one": ParameterNames(names, stacked=True),
        "bias of all": ParameterNames(names, stacked=True, experts=True),
        "of all": ParameterNames(names, stacked=True, experts=True),
    }
    params = {
        "one by one": jax.ShapeDtypeStruct((2, 6, 4), jnp.float32),
        "bias of all": jax.ShapeDtypeStruct((2, 3, 6), jnp.float32),
        "of all": jax.ShapeDtypeStruct((2, 3, 4, 6), jnp.float32),
    }
    assert hyperball.kept(leaves, params) == {
        "one by one": True,
        "bias of all": False,
        "of all": False,
    }
