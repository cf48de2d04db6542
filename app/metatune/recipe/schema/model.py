"""What a recipe says of the language model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from metatune.recipe.rules import CHUNK, ruled

Chunk = int | Literal["auto"] | None
"""Rows of a large array that exist at a time; null for all of them, `auto` by its size."""


@dataclass(frozen=True)
class ModelSpec:
    """The language model that the inner training trains: exactly one of the first two.

    Attributes:
        config: fields of a Hugging Face `config.json`; `model_type` names the family. Every
            training starts from fresh parameters.
        pretrained: folder of a Hugging Face model, or its id on the hub; every training starts
            from its weights.
        revision: branch, tag or commit of a model on the hub.
        dtype: compute type; parameters are always float32. In bfloat16, hypergradients of learning
            rates are as good as its gradients; those of the mixture and of loss weights ask for a
            larger eps_root of AdamW, which `metatune fit` warns of.
        remat: recompute each block in the backward pass: less memory, up to a third more time for
            a plain gradient, hardly more for a hypergradient.
        attention_chunk: queries whose attention scores exist at a time; recomputed in the backward
            pass. By default all, unless those of a block exceed 64 MiB, then as many as fit.
        loss_chunk: tokens whose logits exist at a time; likewise.
    """

    config: Mapping[str, Any] | None = None
    pretrained: str | None = None
    revision: str | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    remat: bool = True
    attention_chunk: Chunk = ruled("auto", CHUNK)
    loss_chunk: Chunk = ruled("auto", CHUNK)
