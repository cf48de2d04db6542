"""Names that trainers have for a checkpoint's parameters, and the rates of those that they fuse."""

import dataclasses
import importlib.util
import warnings

import numpy as np
import pytest

from metatune.artefact import LearningRates
from metatune.artefact.exporters import export
from metatune.artefact.exporters.trainer_names import names_of


def module_at(path):
    spec = importlib.util.spec_from_file_location(f"exported_{path.stem}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("target", ["megatron", "olmo-core", "torchtitan"])
def test_the_names_of_a_llama_are_known(make, tmp_path, target):
    """A fused matrix has the mean of its parts in log space, weighted by their sizes."""
    layer = "model.layers.3."
    parts = [f"{layer}self_attn.{x}_proj.weight" for x in "qkv"]
    names = ["model.embed_tokens.weight", *parts, f"{layer}mlp.gate_proj.weight"]
    artefact = make([*names, f"{layer}mlp.up_proj.weight", "model.norm.weight"])
    artefact = dataclasses.replace(
        artefact, optimizer=dataclasses.replace(artefact.optimizer, decayed=())
    )
    sizes = {name: 30 if "q_proj" in name else 10 for name in artefact.learning_rates.parameters}
    export(artefact, target, tmp_path / "out", lossy=True, sequences_per_step=2048, sizes=sizes)
    export(make(), target, tmp_path / "other", lossy=True, sequences_per_step=2048)
    with pytest.raises(ValueError, match="doesn't know this model's names in the trainer: give"):
        module_at(tmp_path / "other" / "metatune_rates.py").groups()
    module = module_at(tmp_path / "out" / "metatune_rates.py")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        of = {name: group for group in module.groups(fused="mean") for name in group.names}
    if target == "olmo-core":
        assert "blocks.3.attention.w_q.weight" in of and "lm_head.norm.weight" in of
        return
    fused = {
        "megatron": "decoder.layers.3.self_attention.linear_qkv.weight",
        "torchtitan": "layers.3.attention.qkv_linear.wqkv.weight",
    }[target]
    curves = artefact.learning_rates.parameters
    rates = [artefact.learning_rate(name, 7, 20) for name in parts]
    assert module.rate_at(of[fused], 7, 20) == pytest.approx(
        float(np.exp(np.average(np.log(rates), weights=[30, 10, 10]))), rel=1e-12
    )
    assert len(of) == len(curves) - (3 if target == "megatron" else 2)


LLAMA_PARTS = (
    *(f"self_attn.{x}_proj.weight" for x in "qkvo"),
    *(f"mlp.{x}_proj.weight" for x in ("gate", "up", "down")),
    "input_layernorm.weight",
    "post_attention_layernorm.weight",
)
QK_NORMS = ("self_attn.q_norm.weight", "self_attn.k_norm.weight")
FAMILIES = {
    "llama": LLAMA_PARTS,
    "qwen2": (*LLAMA_PARTS, *(f"self_attn.{x}_proj.bias" for x in "qkv")),
    "qwen3": (*LLAMA_PARTS, *QK_NORMS),
    "olmo2": (
        *LLAMA_PARTS[:7],
        *QK_NORMS,
        *(f"post_{x}_layernorm.weight" for x in ("attention", "feedforward")),
    ),
    "gemma2": (
        *LLAMA_PARTS,
        "pre_feedforward_layernorm.weight",
        "post_feedforward_layernorm.weight",
    ),
    "gemma3": (
        *LLAMA_PARTS,
        *QK_NORMS,
        "pre_feedforward_layernorm.weight",
        "post_feedforward_layernorm.weight",
    ),
}
"""Parameters of a layer, as transformers 5.24 saves them."""


@pytest.mark.parametrize(
    ("target", "family", "layer", "some"),
    [
        # olmo_core/nn/hf/convert.py of OLMo-core 3.0.0.
        ("olmo-core", "llama", 9, {"input_layernorm.weight": "attention_norm.weight"}),
        ("olmo-core", "qwen2", 12, {"self_attn.q_proj.bias": "attention.w_q.bias"}),
        ("olmo-core", "qwen3", 11, {"post_attention_layernorm.weight": "feed_forward_norm.weight"}),
        ("olmo-core", "olmo2", 11, {"post_attention_layernorm.weight": "attention_norm.weight"}),
        (
            "olmo-core",
            "gemma2",
            11,
            {"post_attention_layernorm.weight": "post_attention_norm.weight"},
        ),
        (
            "olmo-core",
            "gemma3",
            13,
            {"post_feedforward_layernorm.weight": "post_feed_forward_norm.weight"},
        ),
        # megatron/bridge/models of Megatron-Bridge 0.6.2; q, k, v are one, gate and up too.
        (
            "megatron",
            "llama",
            6,
            {"post_attention_layernorm.weight": "mlp.linear_fc1.layer_norm_weight"},
        ),
        ("megatron", "qwen2", 7, {"self_attn.v_proj.bias": "self_attention.linear_qkv.bias"}),
        ("megatron", "qwen3", 8, {"self_attn.q_norm.weight": "self_attention.q_layernorm.weight"}),
        (
            "megatron",
            "gemma2",
            8,
            {"pre_feedforward_layernorm.weight": "mlp.linear_fc1.layer_norm_weight"},
        ),
        (
            "megatron",
            "gemma3",
            10,
            {"post_feedforward_layernorm.weight": "mlp.linear_fc2.post_layernorm.weight"},
        ),
        # torchtitan/models/{llama3,qwen3}/state_dict_adapter.py of torchtitan 0.3.0.
        ("torchtitan", "llama", 7, {"mlp.up_proj.weight": "feed_forward.w3.weight"}),
        ("torchtitan", "qwen3", 9, {"self_attn.k_norm.weight": "attention.k_norm.weight"}),
    ],
)
def test_names_of_families(target, family, layer, some):
    names = [f"model.layers.{i}.{part}" for i in (0, 13) for part in FAMILIES[family]]
    found = names_of(target, ["model.embed_tokens.weight", *names, "model.norm.weight"])
    assert found is not None
    assert sorted(part for parts in found.values() for part in parts)[1:-1] == sorted(names)
    of_13 = {own: parts for own, parts in found.items() if ".13." in own}
    assert len(of_13) == layer
    for part, theirs in some.items():
        (own,) = [own for own, parts in of_13.items() if f"model.layers.13.{part}" in parts]
        assert own.endswith(f"s.13.{theirs}"), own


def test_a_family_that_a_trainer_does_not_have_is_not_known():
    names = [f"model.layers.0.{part}" for part in FAMILIES["gemma2"]]
    assert names_of("torchtitan", names) is None


@pytest.mark.parametrize("target", ["megatron", "torchtitan"])
def test_how_far_fused_matrices_are_off_is_said(make, tmp_path, target):
    parts = [f"model.layers.0.self_attn.{x}_proj.weight" for x in "qkv"]
    rates = {name: np.array([rate]) for name, rate in zip(parts, (1e-3, 4e-3, 4e-3), strict=True)}
    learning_rates = LearningRates((0.0,), "constant", rates)
    artefact = make(parts, learning_rates=learning_rates, mixture=None, loss_weights=None)
    sizes = dict(zip(parts, (2, 1, 1), strict=True))
    export(artefact, target, tmp_path / "out", sizes=sizes)
    text = (tmp_path / "out" / "README.md").read_text()
    # The mean of 1, 1, 4 and 4 is 2: twice the rate of the first, half that of the others.
    assert "weighted by size: off by up to 100 % (`" in text
    alike = dict.fromkeys(parts, np.array([1e-3]))
    same = dataclasses.replace(artefact, learning_rates=LearningRates((0.0,), "constant", alike))
    export(same, target, tmp_path / "same", sizes=sizes)
    assert "matrices that are fused have" not in (tmp_path / "same" / "README.md").read_text()
