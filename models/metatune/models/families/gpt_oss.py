"""gpt-oss (OpenAI, 2025): attention with sinks, windows on every other layer, clamped experts."""

from collections.abc import Mapping
from typing import Any, Final

from metatune.models.architecture import Architecture, ClampedGate, ExpertLayer, Layer
from metatune.models.family import GROUPED, WITHOUT_DROPOUT, Family, Ropes, base, one_rope
from metatune.models.fields import FLAG, FULL, LAYER_TYPES, POSITIVE, SIZE, SLIDING, Field, only
from metatune.models.rope_config import SECTIONS

STRETCHED: Final[Mapping[str, Any]] = {
    "rope_type": "yarn",
    "factor": 32.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "truncate": False,
    "original_max_position_embeddings": 4096,
}
"""The rotary embedding where the config has none."""


def _types(values: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(FULL if i % 2 else SLIDING for i in range(values["num_hidden_layers"]))


def _ropes(path: str, given: Mapping[str, Any], context: int) -> Ropes:
    if not any(name in given for name in SECTIONS):
        given = {**given, SECTIONS[0]: STRETCHED}
    return one_rope(theta=150000.0)(path, given, context)


def _architecture(values: Mapping[str, Any], layers: tuple[Layer, ...]) -> Architecture:
    bias = values["attention_bias"]
    return Architecture(
        **base(values, layers),
        qkv_bias=bias,
        output_bias=bias,
        sinks=True,
        experts=ExpertLayer(
            values["intermediate_size"],
            values["num_experts"],
            values["num_experts_per_tok"],
            # Probabilities over their sum are a softmax of the chosen experts' logits alone.
            normalised=True,
            clamped=ClampedGate(values["swiglu_alpha"], values["swiglu_limit"]),
        ),
    )


GPT_OSS = Family(
    model_type="gpt_oss",
    causal_class="GptOssForCausalLM",
    fields={
        **GROUPED,
        "num_key_value_heads": Field(SIZE, 8, nullable=True),
        "head_dim": Field(SIZE, 64, nullable=True),
        "max_position_embeddings": Field(SIZE, 131072),
        "hidden_act": Field(only("silu"), "silu"),
        "norm_eps": Field(POSITIVE, 1e-5),
        "attention_bias": Field(FLAG, True),
        "sliding_window": Field(SIZE, 128, nullable=True),
        "layer_types": Field(LAYER_TYPES, nullable=True),
        "num_experts": Field(SIZE),
        "num_experts_per_tok": Field(SIZE),
        "swiglu_alpha": Field(POSITIVE, 1.702),
        "swiglu_limit": Field(POSITIVE, 7.0),
    },
    architecture=_architecture,
    spelling={"norm_eps": "rms_norm_eps", "num_experts": "num_local_experts"},
    other_spellings={"num_experts": "num_local_experts"},
    required=(
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_experts",
        "num_experts_per_tok",
    ),
    fixed={**WITHOUT_DROPOUT, "output_router_logits": only(False)},
    # The last two are in OpenAI's files, and repeat what others say.
    without_effect=frozenset(
        {"router_aux_loss_coef", "experts_per_token", "initial_context_length"}
    ),
    types=_types,
    ropes=_ropes,
)
