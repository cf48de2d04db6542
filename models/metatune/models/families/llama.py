"""Llama (Touvron et al., 2023), whose architecture SmolLM 1 and 2 and TinyLlama have too."""

from collections.abc import Mapping
from typing import Any

from metatune.models.architecture import Architecture, Layer
from metatune.models.family import GROUPED, WITHOUT_DROPOUT, Family, base
from metatune.models.fields import FLAG, Field, only


def _architecture(values: Mapping[str, Any], layers: tuple[Layer, ...]) -> Architecture:
    return Architecture(
        **base(values, layers),
        qkv_bias=values["attention_bias"],
        output_bias=values["attention_bias"],
        mlp_bias=values["mlp_bias"],
    )


LLAMA = Family(
    model_type="llama",
    causal_class="LlamaForCausalLM",
    fields={**GROUPED, "attention_bias": Field(FLAG, False), "mlp_bias": Field(FLAG, False)},
    architecture=_architecture,
    fixed={**WITHOUT_DROPOUT, "pretraining_tp": only(1), "rope_interleaved": only(False)},
    without_effect=frozenset({"is_llama_config"}),
)
