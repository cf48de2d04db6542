"""Qwen 3 with experts (Yang et al., 2025): Qwen 3, experts in all blocks or in some."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from metatune.models.architecture import Architecture, ExpertLayer, Layer
from metatune.models.families.qwen3 import QWEN3
from metatune.models.family import GROUPED, WITHOUT_DROPOUT, Family
from metatune.models.fields import FLAG, FULL, NUMBERS, SIZE, SLIDING, Field, only

EXPERTS = ((r"\.mlp\.router\.", ".mlp.gate."),)
"""What checkpoints of Qwen and OLMo call a router."""

OTHER_SPELLINGS = {"num_local_experts": "num_experts"}
"""What transformers 5 writes of Qwen, and reads of OLMoE."""


def experts(values: Mapping[str, Any], intermediate_size: int) -> ExpertLayer:
    """The experts that a config says, each of so many features."""
    return ExpertLayer(
        intermediate_size,
        values["num_experts"],
        values["num_experts_per_tok"],
        values["norm_topk_prob"],
    )


def _types(values: Mapping[str, Any]) -> tuple[str, ...]:
    windowed = values["use_sliding_window"] and values["sliding_window"] is not None
    return (SLIDING if windowed else FULL,) * values["num_hidden_layers"]


def _architecture(values: Mapping[str, Any], layers: tuple[Layer, ...]) -> Architecture:
    every, without = values["decoder_sparse_step"], values["mlp_only_layers"] or ()
    dense = {i for i in range(len(layers)) if i in without or (i + 1) % every}
    plain = QWEN3.architecture(values, layers)
    if len(dense) == len(layers):
        return plain
    size = values["moe_intermediate_size"]
    return replace(
        plain,
        intermediate_size=plain.intermediate_size if dense else size,
        experts=experts(values, size),
        dense=frozenset(dense),
    )


QWEN3_MOE = Family(
    model_type="qwen3_moe",
    causal_class="Qwen3MoeForCausalLM",
    fields={
        **GROUPED,
        "intermediate_size": Field(SIZE, 6144),  # of blocks without experts
        "num_key_value_heads": Field(SIZE, 4, nullable=True),
        "max_position_embeddings": Field(SIZE, 32768),
        "use_sliding_window": Field(FLAG, False),
        "sliding_window": Field(SIZE, 4096, nullable=True),
        "attention_bias": Field(FLAG, False),
        "moe_intermediate_size": Field(SIZE),
        "num_experts": Field(SIZE),
        "num_experts_per_tok": Field(SIZE),
        "norm_topk_prob": Field(FLAG, False),
        "decoder_sparse_step": Field(SIZE, 1),
        "mlp_only_layers": Field(NUMBERS, nullable=True),
    },
    architecture=_architecture,
    other_spellings=OTHER_SPELLINGS,
    required=(
        "hidden_size",
        "moe_intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_experts",
        "num_experts_per_tok",
    ),
    fixed={
        **WITHOUT_DROPOUT,
        "output_router_logits": only(False),
    },
    without_effect=frozenset({"max_window_layers", "router_aux_loss_coef"}),
    types=_types,
    names=EXPERTS,
)
