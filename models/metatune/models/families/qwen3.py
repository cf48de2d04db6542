"""Qwen 3 (Yang et al., 2025): queries and keys are normalised head by head; no biases."""

from collections.abc import Mapping
from typing import Any

from metatune.models.architecture import Architecture, Layer
from metatune.models.families.qwen2 import QWEN2, late_windows
from metatune.models.family import Family, base
from metatune.models.fields import FLAG, SIZE, Field


def _architecture(values: Mapping[str, Any], layers: tuple[Layer, ...]) -> Architecture:
    bias = values["attention_bias"]
    return Architecture(**base(values, layers), qk_norm="head", qkv_bias=bias, output_bias=bias)


QWEN3 = Family(
    model_type="qwen3",
    causal_class="Qwen3ForCausalLM",
    fields={
        **QWEN2.fields,
        "head_dim": Field(SIZE, 128),
        "attention_bias": Field(FLAG, False),
    },
    architecture=_architecture,
    types=late_windows,
)
