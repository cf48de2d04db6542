"""Trials of scripts/try_exports.py by Levanter's own code, with its Llama."""

from collections.abc import Mapping
from typing import Any

LEVANTER = """
import equinox, haliax, jax, json, metatune_levanter, yaml
import jax.numpy as jnp
from levanter.models.llama import LlamaConfig
from levanter.optim import OptimizerConfig
from levanter.utils.jax_utils import leaf_key_paths
curves = json.load(open("tuned.json"))["learning_rates"]["parameters"]
(chosen,) = yaml.safe_load(open("tuned.yaml"))["optimizer"].values()
config = OptimizerConfig.get_choice_class(chosen)()
for stacked in (True, False):
    own = LlamaConfig(
        hidden_dim=8, intermediate_dim=8, num_layers=2, num_heads=2, num_kv_heads=2,
        tie_word_embeddings=True, scan_layers=stacked)
    model = own.build(haliax.Axis("vocab", 16), key=jax.random.PRNGKey(0))
    params = equinox.filter(model, equinox.is_inexact_array)
    names = jax.tree.leaves(leaf_key_paths(params, use_state_dict_keys=True))
    optimizer = config.build(STEPS)
    state, update = optimizer.init(params), equinox.filter_jit(optimizer.update)
    for step in range(STEPS):
        # Of gradients that stay the direction of Adam is 1, whatever the clipping.
        updates, state = update(jax.tree.map(jnp.ones_like, params), state, params)
        for name, moved, p in zip(names, jax.tree.leaves(updates), jax.tree.leaves(params)):
            decay = 0.1 * p if "embed" in name else 0.0
            rates = -moved / (1 + decay)
            for layer in range(2) if stacked and "layers." in name else (None,):
                whole = name if layer is None else name.replace("layers.", f"layers.{layer}.")
                found = rates if layer is None else rates[layer]
                assert jnp.allclose(found, curves[whole][step], rtol=1e-5, atol=0), (whole, step)
    try:
        optimizer.init({**dict.fromkeys(names[:-1], jnp.ones(2)), "extra": jnp.ones(2)})
        raise AssertionError("a parameter without a curve")
    except ValueError as error:
        assert "extra has no curve" in str(error), error
"""

BY_LEVANTER = """
import equinox, haliax, importlib.util, jax, json, metatune_levanter, sys, yaml
import jax.numpy as jnp, numpy as np, optax
from levanter.optim.muon import scale_with_muon
from levanter.models.llama import LlamaConfig
from levanter.optim import OptimizerConfig
from levanter.utils.jax_utils import leaf_key_paths
module = importlib.util.spec_from_file_location("by_optax", "optax/metatune_schedules.py")
jax.config.update("jax_enable_x64", True)  # in float32 Newton-Schulz's rounding is 1e-5
by_optax = importlib.util.module_from_spec(module)
module.loader.exec_module(by_optax)
settings = json.load(open("tuned.json"))["optimizer"]
orthogonal = {n for group in settings["groups"] for n in group.get("orthogonal", ())}
assert orthogonal, "Muon of no matrix"
random = np.random.default_rng(0)
for stacked in (True, False):
    own = LlamaConfig(
        hidden_dim=8, intermediate_dim=12, num_layers=2, num_heads=4, num_kv_heads=2,
        tie_word_embeddings=True, scan_layers=stacked)
    model = own.build(haliax.Axis("vocab", 16), key=jax.random.PRNGKey(0))
    params = equinox.filter(model, equinox.is_inexact_array)
    params = jax.tree.map(lambda p: p.astype(jnp.float64), params)
    names = jax.tree.leaves(leaf_key_paths(params, use_state_dict_keys=True))
    # Levanter has heads and their size as axes of their own: the checkpoint's are [out, in].
    def flat(name, array):
        inputs = {"o_proj": 8, "down_proj": 12}.get(name.split(".")[-2], 8)
        return array.reshape(-1, inputs) if "_proj" in name else array
    def parted(tree):
        found = {}
        for name, leaf in zip(names, jax.tree.leaves(tree), strict=True):
            if stacked and "layers." in name:
                for i in range(2):
                    found[name.replace("layers.", f"layers.{i}.")] = flat(name, leaf[i])
            else:
                found[name] = flat(name, leaf)
        return found
    ours = OptimizerConfig.get_choice_class("tuned")().build(STEPS)
    theirs = by_optax.optimizer(STEPS)
    begun = alone = parted(params)
    state, other = ours.init(params), theirs.init(alone)
    update, update_alone = equinox.filter_jit(ours.update), jax.jit(theirs.update)
    # Levanter's own Muon, whose momentum is as long as that of a plain trace.
    own = scale_with_muon(0.9, nesterov=False, steps=5, muon_eps=1e-6)
    of_its_own, curves = own.init(params), by_optax._read(by_optax.TUNED)["learning_rates"]
    worst = 0.0
    for step in range(STEPS):
        gradient = jax.tree.map(
            lambda p: jnp.asarray(random.normal(size=p.shape), p.dtype), params)
        moved, state = update(gradient, state, params)
        clipped = jax.tree.map(lambda g: g / max(1, optax.global_norm(gradient)), gradient)
        with jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("data", "model")):
            direction, of_its_own = own.update(clipped, of_its_own)
        direction = parted(direction)
        for name, found in parted(moved).items():
            if name in settings["groups"][0]["parameters"]:
                found = -found / curves["parameters"][name][step] - 0.1 * alone[name]
                assert jnp.allclose(found, direction[name], rtol=1e-4, atol=1e-4), (name, step)
        moved_alone, other = update_alone(parted(gradient), other, alone)
        params = jax.tree.map(lambda p, u: p + u, params, moved)
        alone = jax.tree.map(lambda p, u: p + u, alone, moved_alone)
        for name, found in parted(params).items():
            away = jnp.linalg.norm(found - alone[name])  # of how far it has come
            worst = max(worst, float(away / jnp.linalg.norm(alone[name] - begun[name])))
    assert worst < 1e-11, worst
"""
ADAM: Mapping[str, Any] = {"weight_decay": 0.1, "b1": 0.8, "b2": 0.9, "eps": 1e-6, "eps_root": 0.0}
OF_MUON: Mapping[str, Any] = {"momentum": 0.9, "nesterov": True, "newton_schulz_steps": 5}


def side_by_side(names: tuple[str, ...]) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """The settings of Muon, MuonH and AdamW side by side, and the names that decay."""
    attention = tuple(name for name in names if "_proj" in name and "self_attn" in name)
    feed_forward = tuple(name for name in names if "_proj" in name and "mlp" in name)
    matrices = attention + feed_forward
    others = tuple(name for name in names if name not in matrices)
    muon = {"kind": "muon", "match": "self_attn", "parameters": attention, "orthogonal": attention}
    muonh = {
        "kind": "muonh",
        "match": "mlp",
        "parameters": feed_forward,
        "orthogonal": feed_forward,
        "turned": feed_forward,
    }
    groups = (
        {**ADAM, **OF_MUON, **muon, "nesterov": False, "inputs_first": ()},
        {**ADAM, **OF_MUON, **muonh, "inputs_first": ()},
        {**ADAM, "kind": "adamw", "match": None, "parameters": others},
    )
    settings = {"kind": "groups", "clip_norm": 1.0, "groups": groups}
    return settings, attention + names[:1]


BESIDE_LEVANTER = (
    "equinox",
    "draccus",
    "jmp",
    "humanfriendly",
    "braceexpand",
    "async-lru",
    "pytimeparse",
    "tblib",
    "mergedeep",
    "pyyaml-include",
    "typing-inspect",
    "mypy-extensions",
    "toml",
    "aqtp",
    "gitpython",
    "gitdb",
    "smmap",
    "wandb",
    "tqdm-loggable",
    "deepdiff",
    "dataclasses-json",
    "cloudpickle",
    "wadler-lindig",
    "sentry-sdk",
    "chex",
    "toolz",
    "requests",
    "urllib3",
    "certifi",
)
RAY = {
    "levanter/__init__.py": "",  # which imports what needs ray and clouds
    "ray/__init__.py": "class ObjectRef:\n    pass\ndef remote(*a, **k):\n    return lambda f: f\n"
    "class actor:\n    class ActorHandle:\n        pass\ndef __getattr__(name):\n"
    "    return object\n",
}

LEVANTER_NEEDS = (
    "levanter @ git+https://github.com/marin-community/levanter@9263f81e",
    "haliax @ git+https://github.com/marin-community/haliax@280f49f",
    *BESIDE_LEVANTER,
)
