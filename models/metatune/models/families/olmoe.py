"""OLMoE (Muennighoff et al., 2024): Llama's blocks with experts, norms of queries and keys."""

from collections.abc import Mapping
from typing import Any

from metatune.models.architecture import Architecture, Layer
from metatune.models.families.qwen3_moe import EXPERTS, OTHER_SPELLINGS, experts
from metatune.models.family import ALL, WITHOUT_DROPOUT, Family, base
from metatune.models.fields import FLAG, NULL, POSITIVE, SIZE, Field, only


def _architecture(values: Mapping[str, Any], layers: tuple[Layer, ...]) -> Architecture:
    bias = values["attention_bias"]
    return Architecture(
        **base(values, layers),
        qk_norm="all",
        qkv_bias=bias,
        output_bias=bias,
        experts=experts(values, values["intermediate_size"]),
    )


OLMOE = Family(
    model_type="olmoe",
    causal_class="OlmoeForCausalLM",
    fields={
        **ALL,
        "num_key_value_heads": Field(SIZE, nullable=True),
        "max_position_embeddings": Field(SIZE, 4096),
        "norm_eps": Field(POSITIVE, 1e-5),
        "attention_bias": Field(FLAG, False),
        "num_experts": Field(SIZE),
        "num_experts_per_tok": Field(SIZE),
        "norm_topk_prob": Field(FLAG, False),
    },
    architecture=_architecture,
    other_spellings=OTHER_SPELLINGS,
    required=(
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_experts",
        "num_experts_per_tok",
    ),
    fixed={**WITHOUT_DROPOUT, "clip_qkv": NULL, "output_router_logits": only(False)},
    without_effect=frozenset({"router_aux_loss_coef"}),
    names=EXPERTS,
)
