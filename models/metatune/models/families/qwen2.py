"""Qwen 2 and 2.5 (Yang et al., 2024): biases on queries, keys, values; windows on late layers."""

from collections.abc import Mapping
from typing import Any

from metatune.models.architecture import Architecture, Layer
from metatune.models.family import GROUPED, WITHOUT_DROPOUT, Family, base
from metatune.models.fields import FLAG, FULL, LAYER_TYPES, NOT_NEGATIVE, SIZE, SLIDING, Field, only


def late_windows(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Windows from layer `max_window_layers` on, if they are used."""
    windowed = values["use_sliding_window"] and values["sliding_window"] is not None
    first = values["max_window_layers"] if windowed else values["num_hidden_layers"]
    return tuple(FULL if i < first else SLIDING for i in range(values["num_hidden_layers"]))


def _architecture(values: Mapping[str, Any], layers: tuple[Layer, ...]) -> Architecture:
    return Architecture(**base(values, layers), qkv_bias=True)


QWEN2 = Family(
    model_type="qwen2",
    causal_class="Qwen2ForCausalLM",
    fields={
        **GROUPED,
        "num_key_value_heads": Field(SIZE, 32, nullable=True),
        "max_position_embeddings": Field(SIZE, 32768),
        "use_sliding_window": Field(FLAG, False),
        "sliding_window": Field(SIZE, 4096, nullable=True),
        "max_window_layers": Field(NOT_NEGATIVE, 28),
        "layer_types": Field(LAYER_TYPES, nullable=True),
    },
    architecture=_architecture,
    fixed={**WITHOUT_DROPOUT, "use_mrope": only(False)},
    types=late_windows,
)
