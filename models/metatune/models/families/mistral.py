"""Mistral (Jiang et al., 2023): a window over all layers, no biases."""

from collections.abc import Mapping
from typing import Any

from metatune.models.architecture import Architecture, Layer
from metatune.models.family import GROUPED, Family, base
from metatune.models.fields import FULL, SIZE, SLIDING, Field


def _types(values: Mapping[str, Any]) -> tuple[str, ...]:
    kind = FULL if values["sliding_window"] is None else SLIDING
    return (kind,) * values["num_hidden_layers"]


def _architecture(values: Mapping[str, Any], layers: tuple[Layer, ...]) -> Architecture:
    return Architecture(**base(values, layers))


MISTRAL = Family(
    model_type="mistral",
    causal_class="MistralForCausalLM",
    fields={
        **GROUPED,
        "num_key_value_heads": Field(SIZE, 8, nullable=True),
        "max_position_embeddings": Field(SIZE, 32 * 4096),
        "sliding_window": Field(SIZE, 4096, nullable=True),
    },
    architecture=_architecture,
    types=_types,
)
