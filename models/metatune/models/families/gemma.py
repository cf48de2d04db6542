"""Gemma (Gemma Team, 2024): norms' weights are offsets from one, embeddings are scaled."""

import math
from collections.abc import Mapping
from typing import Any

from metatune.models.architecture import Architecture, Layer
from metatune.models.family import GROUPED, WITHOUT_DROPOUT, Family, base
from metatune.models.fields import FLAG, SIZE, Field, only

TANH = "gelu_pytorch_tanh"


def gemma_base(values: Mapping[str, Any], layers: tuple[Layer, ...]) -> dict[str, Any]:
    """What all Gemmas share: as `base`."""
    return {
        **base(values, layers),
        "norm": "centred_rms",
        "qkv_bias": values["attention_bias"],
        "output_bias": values["attention_bias"],
        "embedding_scale": math.sqrt(values["hidden_size"]),
    }


def _architecture(values: Mapping[str, Any], layers: tuple[Layer, ...]) -> Architecture:
    # Early files say `gelu`, and mean its approximation (transformers #29402).
    meant = {**values, "hidden_act": TANH} if values["hidden_act"] == "gelu" else values
    return Architecture(**gemma_base(meant, layers))


GEMMA_FIELDS: Mapping[str, Field] = {
    **GROUPED,
    "num_key_value_heads": Field(SIZE, 16),
    "head_dim": Field(SIZE, 256),
    "hidden_act": GROUPED["hidden_act"]._replace(default=TANH),
    "max_position_embeddings": Field(SIZE, 8192),
    "attention_bias": Field(FLAG, False),
    "tie_word_embeddings": Field(FLAG, True),
}
CAUSAL = {**WITHOUT_DROPOUT, "use_bidirectional_attention": only(False)}
"""What is fixed in all Gemmas."""

GEMMA = Family(
    model_type="gemma",
    causal_class="GemmaForCausalLM",
    fields=GEMMA_FIELDS,
    architecture=_architecture,
    fixed={**CAUSAL, "hidden_activation": only(TANH)},
)
