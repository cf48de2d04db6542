"""SmolLM3 (Hugging Face, 2025): Llama, but some layers have no rotary embedding."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from metatune.models.architecture import Architecture, Layer
from metatune.models.families.llama import LLAMA
from metatune.models.family import Family, one_rope
from metatune.models.fields import FLAG, FULL, LAYER_TYPES, SIZE, SLIDING, SWITCHES, Field


def _rotated(values: Mapping[str, Any]) -> tuple[bool, ...]:
    """Whether each layer has a rotary embedding: a one in `no_rope_layers` says it has."""
    every, count = values["no_rope_layer_interval"], values["num_hidden_layers"]
    switches = values["no_rope_layers"] or [(i + 1) % every for i in range(count)]
    return tuple(bool(switch) for switch in switches)


def _types(values: Mapping[str, Any]) -> tuple[str, ...]:
    windowed = values["use_sliding_window"] and values["sliding_window"] is not None
    return tuple(FULL if turned or not windowed else SLIDING for turned in _rotated(values))


def _architecture(values: Mapping[str, Any], layers: tuple[Layer, ...]) -> Architecture:
    turned = zip(layers, _rotated(values), strict=True)
    return LLAMA.architecture(
        values, tuple(layer if yes else replace(layer, rope=None) for layer, yes in turned)
    )


SMOLLM3 = Family(
    model_type="smollm3",
    causal_class="SmolLM3ForCausalLM",
    fields={
        **LLAMA.fields,
        "num_key_value_heads": Field(SIZE, 4, nullable=True),
        "max_position_embeddings": Field(SIZE, 32768),
        "tie_word_embeddings": Field(FLAG, True),
        "no_rope_layers": Field(SWITCHES, nullable=True),
        "no_rope_layer_interval": Field(SIZE, 4),
        "layer_types": Field(LAYER_TYPES, nullable=True),
        "use_sliding_window": Field(FLAG, False),
        "sliding_window": Field(SIZE, nullable=True),
    },
    architecture=_architecture,
    without_effect=frozenset({"max_window_layers", "pretraining_tp"}),
    types=_types,
    ropes=one_rope(theta=2e6),
)
