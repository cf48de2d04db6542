"""Gemma 2 (Gemma Team, 2024): norms after attention and MLP, soft caps, windows on every other."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from metatune.models.architecture import Architecture, Layer
from metatune.models.families.gemma import CAUSAL, GEMMA_FIELDS, TANH, gemma_base
from metatune.models.family import Family
from metatune.models.fields import FULL, LAYER_TYPES, POSITIVE, SIZE, SLIDING, Field, only


def scaled(values: Mapping[str, Any], layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """Layers whose scores are scaled by `query_pre_attn_scalar`, not by the heads' width."""
    scale = values["query_pre_attn_scalar"] ** -0.5
    return tuple(replace(layer, scale=scale) for layer in layers)


def _types(values: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(FULL if i % 2 else SLIDING for i in range(values["num_hidden_layers"]))


def _architecture(values: Mapping[str, Any], layers: tuple[Layer, ...]) -> Architecture:
    return Architecture(
        **gemma_base(values, scaled(values, layers)),
        norms="around",
        attention_softcap=values["attn_logit_softcapping"],
        logit_softcap=values["final_logit_softcapping"],
    )


GEMMA2 = Family(
    model_type="gemma2",
    causal_class="Gemma2ForCausalLM",
    fields={
        **GEMMA_FIELDS,
        "num_key_value_heads": Field(SIZE, 4),
        "query_pre_attn_scalar": Field(POSITIVE, 256),
        "sliding_window": Field(SIZE, 4096, nullable=True),
        "layer_types": Field(LAYER_TYPES, nullable=True),
        "final_logit_softcapping": Field(POSITIVE, 30.0, nullable=True),
        "attn_logit_softcapping": Field(POSITIVE, 50.0, nullable=True),
    },
    architecture=_architecture,
    spelling={"norm_eps": "rms_norm_eps", "hidden_act": "hidden_activation"},
    fixed={**CAUSAL, "hidden_act": only(TANH)},
    types=_types,
)
