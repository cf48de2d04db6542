"""Mistral (Jiang et al., 2023): a window over all layers, no biases."""

from collections.abc import Mapping
from typing import Any

from metatune.models.architecture import Architecture, Layer
from metatune.models.family import GROUPED, Family, base
from metatune.models.fields import FULL, SIZE, SLIDING, Field


def window_everywhere(values: Mapping[str, Any]) -> tuple[str, ...]:
    """A window over all layers, or over none."""
    kind = FULL if values["sliding_window"] is None else SLIDING
    return (kind,) * values["num_hidden_layers"]


def plain(values: Mapping[str, Any], layers: tuple[Layer, ...]) -> Architecture:
    """What all families have, and nothing else."""
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
    architecture=plain,
    types=window_everywhere,
)
