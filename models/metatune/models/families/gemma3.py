"""Gemma 3's text model (Gemma Team, 2025): local layers have a window and a rope of their own."""

from collections.abc import Mapping
from typing import Any

from metatune.models.architecture import Architecture, Layer
from metatune.models.families.gemma import CAUSAL, TANH, gemma_base
from metatune.models.families.gemma2 import GEMMA2, scaled
from metatune.models.family import Family, Ropes
from metatune.models.fields import FULL, NULL, POSITIVE, SIZE, SLIDING, Field, only
from metatune.models.rope_config import (
    SECTIONS,
    THETA,
    WHOLE_PAIRS,
    RopeFields,
    read_by_layer,
)

LOCAL = "rope_local_base_freq"
"""The windowed layers' theta in transformers 4."""


def _types(values: Mapping[str, Any]) -> tuple[str, ...]:
    every, count = values["sliding_window_pattern"], values["num_hidden_layers"]
    return tuple(SLIDING if (i + 1) % every else FULL for i in range(count))


def _ropes(path: str, given: Mapping[str, Any], context: int) -> Ropes:
    reads = {
        FULL: RopeFields({THETA: 1e6}, rules=WHOLE_PAIRS),
        SLIDING: RopeFields({THETA: 1e4}, {THETA: (LOCAL,)}, rules=WHOLE_PAIRS),
    }
    return read_by_layer(path, given, context, reads)


def _architecture(values: Mapping[str, Any], layers: tuple[Layer, ...]) -> Architecture:
    return Architecture(
        **gemma_base(values, scaled(values, layers)),
        norms="around",
        qk_norm="head",
        logit_softcap=values["final_logit_softcapping"],
    )


GEMMA3 = Family(
    model_type="gemma3_text",
    causal_class="Gemma3ForCausalLM",
    fields={
        **{k: v for k, v in GEMMA2.fields.items() if k != "attn_logit_softcapping"},
        "max_position_embeddings": Field(SIZE, 131072),
        "final_logit_softcapping": Field(POSITIVE, nullable=True),
        "sliding_window_pattern": Field(SIZE, 6),
    },
    architecture=_architecture,
    spelling=GEMMA2.spelling,
    # Transformers reads the cap on attention's scores and doesn't apply it.
    fixed={**CAUSAL, "hidden_act": only(TANH), "attn_logit_softcapping": NULL},
    without_effect=frozenset({"_sliding_window_pattern"}),
    types=_types,
    ropes=_ropes,
    rope_fields=(*SECTIONS, THETA, LOCAL),
)
