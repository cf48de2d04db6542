"""A language model as functions of its parameters."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from metatune.models.config import PATH, LlamaConfig, read_llama
from metatune.models.llama import Llama
from metatune.models.names import parameter_names
from metatune.recipe.faults import ABSENT, Fault, RecipeError, unknown
from metatune.recipe.rules import CHUNK
from metatune.recipe.schema import Chunk


class Family(NamedTuple):
    """A model family.

    Attributes:
        read: `(config, vocab_size) -> config or faults`.
        module: `(config, dtype, remat, attention_chunk) -> module` from tokens to hidden features.
    """

    read: Callable[[Mapping[str, Any], int], LlamaConfig | tuple[Fault, ...]]
    module: Callable[[LlamaConfig, str, bool, Chunk], nn.Module]


FAMILIES: Mapping[str, Family] = {"llama": Family(read_llama, Llama)}
"""By `model_type`; a new family is a new row."""
DTYPES = ("float32", "bfloat16", "float64")


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model; hashable, so that it can be a static argument of `jax.jit`.

    Attributes:
        family: its `model_type`.
        config: its sizes.
        dtype: compute type; parameters are float32 whatever it is.
        remat: recompute each block in the backward pass.
        attention_chunk: queries whose scores exist at a time, None for all of them.
        loss_chunk: tokens whose logits exist at a time in a loss, None for all of them.
    """

    family: str
    config: LlamaConfig
    dtype: str = "float32"
    remat: bool = False
    attention_chunk: Chunk = "auto"
    loss_chunk: Chunk = "auto"

    @property
    def _module(self) -> nn.Module:
        module = FAMILIES[self.family].module
        return module(self.config, self.dtype, self.remat, self.attention_chunk)

    def init(self, key: jax.Array) -> dict[str, Any]:
        """Fresh parameters, nested dictionaries of float32 arrays.

        The path to a leaf, joined by dots, is its checkpoint name without the layer's number;
        leaves below `layers` are stacked on axis 0.
        """
        variables = self._module.init(key, jnp.zeros((1, 2), jnp.int32))
        return dict(variables["params"])

    def hidden(self, params: Mapping[str, Any], tokens: jax.Array) -> jax.Array:
        """Features after the final norm, [batch, seq, hidden], of tokens [batch, seq]."""
        hidden = self._module.apply({"params": params}, tokens)
        if not isinstance(hidden, jax.Array):
            raise TypeError(f"the {self.family} module returned {type(hidden)}")
        return hidden

    def unembedding(self, params: Mapping[str, Any]) -> jax.Array:
        """The weights from features to logits, [vocab, hidden] float32."""
        if self.config.tie_word_embeddings:
            return params["model"]["embed_tokens"]["weight"]
        return params["lm_head"]["weight"]

    def logits(self, params: Mapping[str, Any], tokens: jax.Array) -> jax.Array:
        """Logits of the next token, [batch, seq, vocab] in at least float32."""
        return unembed(self.hidden(params, tokens), self.unembedding(params))

    def names(self) -> dict[str, Any]:
        """Checkpoint names: like the parameters, with `ParameterNames` at the leaves."""
        return parameter_names(jax.eval_shape(self.init, jax.random.key(0)))


def unembed(hidden: jax.Array, unembedding: jax.Array) -> jax.Array:
    """Logits of hidden features, computed in their dtype, summed in at least float32.

    Args:
        hidden: features after the final norm, [..., hidden].
        unembedding: the weights from features to logits, [vocab, hidden].

    Returns:
        [..., vocab].
    """
    logits = jax.lax.dot_general(
        hidden.reshape(-1, hidden.shape[-1]),
        unembedding.astype(hidden.dtype),
        (((1,), (1,)), ((), ())),
        preferred_element_type=jnp.promote_types(hidden.dtype, jnp.float32),
    )
    return logits.reshape(*hidden.shape[:-1], -1)


def config_faults(config: Mapping[str, Any], *, vocab_size: int) -> tuple[Fault, ...]:
    """All that is wrong with a model's config.

    Args:
        config: fields of a Hugging Face `config.json`.
        vocab_size: the tokenizer's.
    """
    read = _read(config, vocab_size)
    return read if isinstance(read, tuple) else ()


def build(
    config: Mapping[str, Any],
    *,
    vocab_size: int,
    dtype: str = "float32",
    remat: bool = False,
    attention_chunk: Chunk = "auto",
    loss_chunk: Chunk = "auto",
) -> LanguageModel:
    """The model of a config.

    Args:
        config: fields of a Hugging Face `config.json`.
        vocab_size: the tokenizer's; the model's where the config has none.
        dtype: compute type: `float32` or `bfloat16` (`float64` for checking derivatives).
        remat: recompute each block in the backward pass.
        attention_chunk: queries whose scores exist at a time: a number, None for all of them, or
            `auto` for a choice by size (`chunking.rows_at_a_time`).
        loss_chunk: likewise, tokens whose logits exist at a time in a loss.

    Raises:
        RecipeError: with all faults of the config, of an unknown dtype and of the chunks.
    """
    read = _read(config, vocab_size)
    faults = read if isinstance(read, tuple) else ()
    if dtype not in DTYPES:
        faults += (unknown("model.dtype", dtype, "choice", dtype, DTYPES),)
    for name, chunk in (("attention_chunk", attention_chunk), ("loss_chunk", loss_chunk)):
        if chunk is not None and not CHUNK.holds(chunk):
            faults += (Fault(f"model.{name}", chunk, f"must be {CHUNK.allowed}"),)
    if faults or isinstance(read, tuple):
        raise RecipeError("model", faults)
    return LanguageModel(config["model_type"], read, dtype, remat, attention_chunk, loss_chunk)


def _read(config: Mapping[str, Any], vocab_size: int) -> LlamaConfig | tuple[Fault, ...]:
    """The config, read by its family, or all its faults."""
    kind = config.get("model_type", ABSENT)
    if kind not in list(FAMILIES):  # a list, because what was received may not be hashable
        return (unknown(f"{PATH}.model_type", kind, "model family", kind, list(FAMILIES)),)
    return FAMILIES[kind].read(config, vocab_size)
