"""The optimizer for Levanter, against that for Optax, whose parameters aren't stacked.

`scripts/try_exports.py` runs it with Levanter's own models.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metatune.artefact import LearningRates
from metatune.artefact.exporters import export

STEPS, LAYERS = 12, 3
PARTS = ("mlp.up_proj.weight", "input_layernorm.weight")
SHAPES = {"mlp.up_proj.weight": (4, 2), "input_layernorm.weight": (2,)}
STACKED = {
    "model.embed_tokens.weight": (5, 2),
    **{f"model.layers.{part}": (LAYERS, *SHAPES[part]) for part in PARTS},
}
NAMES = (
    "model.embed_tokens.weight",
    *(f"model.layers.{i}.{part}" for i in range(LAYERS) for part in PARTS),
)
ADAMH: Any = {
    "kind": "adamh",
    "weight_decay": 0.2,
    "b1": 0.9,
    "b2": 0.9,
    "eps": 1e-6,
    "eps_root": 1e-12,
    "clip_norm": 1.0,
}
WEIGHTS = tuple(name for name in NAMES if "layernorm" not in name)
GROUPS: Any = {
    "kind": "groups",
    "clip_norm": 1.0,
    "groups": [
        {
            **{key: value for key, value in ADAMH.items() if key != "clip_norm"},
            "match": "up_proj",
            "parameters": WEIGHTS[1:],
            "turned": WEIGHTS[1:],
        },
        {
            "match": "embed",
            "kind": "sgd",
            "weight_decay": 0.3,
            "momentum": 0.5,
            "nesterov": False,
            "parameters": WEIGHTS[:1],
        },
        {
            **{key: value for key, value in ADAMH.items() if key != "clip_norm"},
            "match": None,
            "kind": "adamw",
            "b1": 0.5,
            "parameters": tuple(name for name in NAMES if "layernorm" in name),
        },
    ],
}
MUON: Any = {
    **ADAMH,
    "kind": "muon",
    "momentum": 0.8,
    "nesterov": True,
    "newton_schulz_steps": 4,
}
MUONH: Any = {**MUON, "kind": "muonh", "nesterov": False}
OF_MUON: Any = {
    **GROUPS,
    "groups": [
        {
            **{key: value for key, value in MUON.items() if key != "clip_norm"},
            "match": "layers.*weight",
            "parameters": NAMES[1:],
            "orthogonal": WEIGHTS[1:],
            "inputs_first": (),
        },
        {**GROUPS["groups"][1], "match": None},
    ],
}
SGD = {"kind": "sgd", "weight_decay": 0.1, "momentum": 0.9, "nesterov": True, "clip_norm": None}


class Axis(NamedTuple):
    """As of Haliax."""

    name: str
    size: int


def static() -> Any:
    return dataclasses.field(metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Named:
    """As of Haliax: an array whose axes have names."""

    array: Any
    axes: tuple[Axis, ...] = static()


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Linear:
    """As of Haliax: heads and their size are axes of their own."""

    weight: Named
    In: Any = static()
    Out: Any = static()


IN, OUT = Axis("embed", 2), (Axis("heads", 2), Axis("size", 2))


def modules(tree) -> Any:
    """The up projection as a linear layer, as Levanter's models have it."""
    found = dict(tree)
    stacked = found.pop("model.layers.mlp.up_proj.weight")
    axes = (Axis("layers", LAYERS), *OUT, IN)
    whole = jnp.reshape(stacked, [axis.size for axis in axes])
    return {**found, "model.layers.mlp.up_proj.weight": Linear(Named(whole, axes), IN, OUT)}


class OptimizerConfig:
    """As levanter/optim/config.py has it: subclasses by name."""

    known: dict[str, Any] = {}

    @classmethod
    def register_subclass(cls, name):
        def register(subclass):
            cls.known[name] = subclass
            return subclass

        return register


@pytest.fixture
def exported(make, tmp_path, load_module, stub):
    """The artefact, the optimizer of Levanter's configuration, and that for Optax."""
    stub("levanter.optim", OptimizerConfig=OptimizerConfig)
    stub("haliax.nn", Linear=Linear)

    def leaf_key_paths(tree, use_state_dict_keys):
        assert use_state_dict_keys
        return {name: jax.tree.map(lambda _, own=name: own, node) for name, node in tree.items()}

    stub("levanter.utils.jax_utils", leaf_key_paths=leaf_key_paths)

    def build(interpolation: Any = "constant", names=NAMES, **options):
        random = np.random.default_rng(3)
        knots = (0.0, 0.25, 0.5)
        curves = {name: random.uniform(1e-3, 1e-1, 3) for name in names}
        rates = LearningRates(knots, interpolation, curves)
        artefact = make(
            names, STEPS, learning_rates=rates, mixture=None, loss_weights=None, **options
        )
        for target in ("levanter", "optax"):
            export(artefact, target, tmp_path / target, overwrite=True)
        theirs = load_module(tmp_path / "optax").optimizer(STEPS)
        load_module(tmp_path / "levanter", "metatune_levanter")
        return OptimizerConfig.known["tuned"]().build(STEPS), theirs

    return build


def unstacked(tree):
    found = {}
    for name, leaf in tree.items():
        if isinstance(leaf, Linear):
            leaf = leaf.weight.array.reshape(STACKED[name])
        if "layers." in name:
            for i in range(LAYERS):
                found[name.replace("layers.", f"layers.{i}.")] = leaf[i]
        else:
            found[name] = leaf
    return found


@pytest.mark.parametrize("interpolation", ["constant", "linear"])
@pytest.mark.parametrize(
    "settings",
    [None, SGD, ADAMH, GROUPS, MUON, MUONH, OF_MUON],
    ids=["adamw", "sgd", "adamh", "groups", "muon", "muonh", "groups of muon"],
)
def test_stacked_layers_train_as_layers_do(exported, interpolation, settings):
    ours, theirs = exported(interpolation, **({} if settings is None else {"settings": settings}))
    random = np.random.default_rng(0)
    params = modules({n: jnp.asarray(random.normal(size=s)) for n, s in STACKED.items()})
    alone: Any = unstacked(params)
    state, other = ours.init(params), theirs.init(alone)
    update, update_alone = jax.jit(ours.update), jax.jit(theirs.update)
    for _ in range(STEPS):
        gradient = modules({n: jnp.asarray(random.normal(size=s)) for n, s in STACKED.items()})
        updates, state = update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        updates, other = update_alone(unstacked(gradient), other, alone)
        alone = optax.apply_updates(alone, updates)
    for name, leaf in unstacked(params).items():
        # What is made orthogonal takes roundings of the norm of a matrix further.
        scale = 10 if settings in (MUON, MUONH, OF_MUON) else 1
        np.testing.assert_allclose(leaf, alone[name], rtol=2e-6 * scale, atol=2e-7 * scale)


def test_what_is_no_linear_layer_is_not_made_orthogonal(exported):
    ours, _ = exported(settings=MUON)
    params: Any = {name: jnp.ones(shape) for name, shape in STACKED.items()}
    with pytest.raises(ValueError, match="model.layers.mlp.up_proj.weight: Muon needs a linear"):
        ours.init(params)


def test_layers_that_are_not_stacked_have_their_own_names(exported):
    ours, _ = exported()
    params = {name: jnp.ones(2) for name in NAMES}
    ours.update(params, ours.init(params), params, loss=0.0)  # as Levanter calls it


def test_names_that_do_not_match_are_refused(exported):
    ours, _ = exported()
    params: Any = {name: jnp.ones(shape) for name, shape in STACKED.items()}
    with pytest.raises(ValueError) as refused:
        ours.init({**params, "model.layers.mlp.up_proj.bias": jnp.ones((LAYERS, 2))})
    assert "model.layers.mlp.up_proj.bias has no curve in" in str(refused.value)
    assert "; model.layers.mlp.up_proj.weight?" in str(refused.value)
    del params["model.layers.mlp.up_proj.weight"]
    with pytest.raises(ValueError, match="model.layers.2.mlp.up_proj.weight of .* is no parameter"):
        ours.init(params)
    params["model.layers.mlp.up_proj.weight"] = jnp.ones((2, 4, 2))
    with pytest.raises(ValueError, match=r"3 layers in .*, but the model's is \[2, 4, 2\]"):
        ours.init(params)
