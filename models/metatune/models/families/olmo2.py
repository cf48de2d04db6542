"""OLMo 2 (OLMo Team, 2024): norms after attention and MLP alone, and over all heads together."""

from collections.abc import Mapping
from typing import Any

from metatune.models.architecture import Architecture, Layer
from metatune.models.family import GROUPED, Family, base
from metatune.models.fields import FLAG, POSITIVE, Field


def normed_after(values: Mapping[str, Any], layers: tuple[Layer, ...]) -> Architecture:
    """The architecture of OLMo 2 and 3."""
    bias = values["attention_bias"]
    return Architecture(
        **base(values, layers), norms="after", qk_norm="all", qkv_bias=bias, output_bias=bias
    )


OLMO2 = Family(
    model_type="olmo2",
    causal_class="Olmo2ForCausalLM",
    fields={**GROUPED, "norm_eps": Field(POSITIVE, 1e-5), "attention_bias": Field(FLAG, False)},
    architecture=normed_after,
)
