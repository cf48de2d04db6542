"""Granite (IBM, 2024): Llama with a multiplier for embeddings, scores, branches and logits each."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from metatune.models.architecture import Architecture, Layer
from metatune.models.families.llama import LLAMA
from metatune.models.family import Family
from metatune.models.fields import POSITIVE, Field


def _architecture(values: Mapping[str, Any], layers: tuple[Layer, ...]) -> Architecture:
    # The multiplier is the scale itself, and one where the config has none.
    scaled = tuple(replace(layer, scale=float(values["attention_multiplier"])) for layer in layers)
    return replace(
        LLAMA.architecture(values, scaled),
        embedding_scale=float(values["embedding_multiplier"]),
        residual_scale=float(values["residual_multiplier"]),
        logit_divisor=float(values["logits_scaling"]),
    )


GRANITE = Family(
    model_type="granite",
    causal_class="GraniteForCausalLM",
    fields={
        **LLAMA.fields,
        "embedding_multiplier": Field(POSITIVE, 1.0),
        "attention_multiplier": Field(POSITIVE, 1.0),
        "residual_multiplier": Field(POSITIVE, 1.0),
        "logits_scaling": Field(POSITIVE, 1.0),
    },
    architecture=_architecture,
)
