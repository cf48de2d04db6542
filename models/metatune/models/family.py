"""What a model family is: how its config is read, and what its checkpoints call parameters."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from metatune.models.architecture import ACTIVATIONS, Architecture, Layer
from metatune.models.fields import FLAG, FULL, LAYERS, POSITIVE, SIZE, SLIDING, Field, only
from metatune.models.rope import Rope
from metatune.models.rope_config import SECTIONS, THETA, RopeFields, read_rope
from metatune.recipe.faults import Fault
from metatune.recipe.rules import ValueRule

Renaming = tuple[tuple[str, str], ...]
"""Regular expressions and what replaces what they find, one after the other."""
Ropes = Mapping[str, Rope | None] | tuple[Fault, ...]
"""Rotary embeddings by type of layer, or what is wrong with them."""


def all_full(values: Mapping[str, Any]) -> tuple[str, ...]:
    """The types of layers of a model without windows."""
    return (FULL,) * values["num_hidden_layers"]


def one_rope(
    theta: float = 10000.0, **reads: Any
) -> Callable[[str, Mapping[str, Any], int], Ropes]:
    """The reader of configs with one rotary embedding for all layers.

    Args:
        theta: the default of `rope_theta`.
        reads: further fields of `RopeFields`.
    """

    def ropes(path: str, given: Mapping[str, Any], context: int) -> Ropes:
        rope = read_rope(path, given, context, RopeFields({THETA: theta}, **reads))
        return rope if isinstance(rope, tuple) else dict.fromkeys((FULL, SLIDING), rope)

    return ropes


@dataclass(frozen=True)
class Family:
    """A model family of transformers.

    Attributes:
        model_type: its name in `config.json`.
        causal_class: transformers' class of its language model.
        fields: those of `config.json` that are read, by the names that most families have.
        architecture: `(values, layers) -> architecture`, from sound values of all fields and the
            layers with windows, rotary embeddings and the usual scale.
        spelling: what this family calls fields that it has another name for.
        other_spellings: further names of fields, by them what the family calls the field.
        required: fields without a default: transformers' would be a model of billions.
        fixed: fields that would change logits, or training, at any other value.
        without_effect: further fields that change neither logits nor initialisation.
        types: `values -> type of each layer`, where `layer_types` doesn't say.
        ropes: `(path, given, context) -> rotary embeddings by type of layer, or faults`.
        rope_fields: the fields that `ropes` reads.
        names: from our names of parameters to those in checkpoints.
        older_names: from other names that checkpoints have for a parameter, to these.
        buffers: finds the names of what isn't a parameter.
    """

    model_type: str
    causal_class: str
    fields: Mapping[str, Field]
    architecture: Callable[[Mapping[str, Any], tuple[Layer, ...]], Architecture]
    spelling: Mapping[str, str] = field(default_factory=lambda: {"norm_eps": "rms_norm_eps"})
    other_spellings: Mapping[str, str] = field(default_factory=dict)
    required: tuple[str, ...] = (
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
    )
    fixed: Mapping[str, ValueRule] = field(default_factory=lambda: WITHOUT_DROPOUT)
    without_effect: frozenset[str] = frozenset()
    types: Callable[[Mapping[str, Any]], tuple[str, ...]] = all_full
    ropes: Callable[[str, Mapping[str, Any], int], Ropes] = one_rope()
    rope_fields: tuple[str, ...] = (*SECTIONS, THETA)
    names: Renaming = ()
    older_names: Renaming = ((r"^(?=(embed_tokens|layers|norm)\.)", "model."),)
    buffers: str = r"\.rotary_emb\.inv_freq$"

    def spelled(self, name: str) -> str:
        """What this family calls a field in `config.json`."""
        return self.spelling.get(name, name)

    @property
    def reads(self) -> frozenset[str]:
        """The fields of `config.json` that this family reads."""
        fields = (self.spelled(name) for name in self.fields)
        return frozenset({*fields, *self.fixed, *self.rope_fields, *self.other_spellings})

    def checkpoint_name(self, name: str) -> str:
        """What checkpoints call the parameter that we call `name`."""
        return _renamed(name, self.names)

    def normalised(self, name: str) -> str | None:
        """The checkpoint's name of what a file calls `name`; None for what isn't a parameter."""
        return None if re.search(self.buffers, name) else _renamed(name, self.older_names)


def _renamed(name: str, renaming: Renaming) -> str:
    for expression, replacement in renaming:
        name = re.sub(expression, replacement, name)
    return name


WITHOUT_DROPOUT: Mapping[str, ValueRule] = {"attention_dropout": only(0)}
ACTIVATION = ValueRule(lambda value: value in list(ACTIVATIONS), " or ".join(ACTIVATIONS))
ALL: Mapping[str, Field] = {
    "hidden_size": Field(SIZE),
    "intermediate_size": Field(SIZE),
    "num_hidden_layers": Field(LAYERS),
    "num_attention_heads": Field(SIZE),
    "vocab_size": Field(SIZE),
    "max_position_embeddings": Field(SIZE, 2048),
    "hidden_act": Field(ACTIVATION, "silu"),
    "norm_eps": Field(POSITIVE, 1e-6),
    "initializer_range": Field(POSITIVE, 0.02),
    "tie_word_embeddings": Field(FLAG, False),
}
"""Fields of every family, with Llama's defaults."""
GROUPED: Mapping[str, Field] = {
    **ALL,
    "num_key_value_heads": Field(SIZE, nullable=True),
    "head_dim": Field(SIZE, nullable=True),
}
"""Fields of the families with grouped queries; by default as many keys as queries, in all as wide
as the residual stream."""


def base(values: Mapping[str, Any], layers: tuple[Layer, ...]) -> dict[str, Any]:
    """The fields of an architecture that all families read alike.

    Args:
        values: of the config's fields.
        layers: of the architecture.
    """
    alike = [name for name in ALL if name != "num_hidden_layers"]
    return {
        **{name: values[name] for name in (*alike, "num_key_value_heads", "head_dim")},
        "layers": layers,
        "attention_output_initializer_range": values["initializer_range"],
        "mlp_output_initializer_range": values["initializer_range"],
    }
