"""A language model as functions of its parameters."""

import functools
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp

from metatune.models.architecture import Architecture
from metatune.models.config import PATH, passed_over, read
from metatune.models.experts import Routing
from metatune.models.families import FAMILIES
from metatune.models.layout import Layout
from metatune.models.names import Shape, parameter_names, shapes_by_name
from metatune.models.transformer import Transformer
from metatune.recipe.faults import ConfigWarning, Fault, RecipeError, unknown
from metatune.recipe.rules import CHUNK
from metatune.recipe.schema import Chunk

DTYPES = ("float32", "bfloat16", "float64")


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model; hashable, so that it can be a static argument of `jax.jit`.

    Attributes:
        family: its `model_type`.
        config: its architecture.
        dtype: compute type; parameters are float32 whatever it is.
        remat: recompute each block in the backward pass.
        attention_chunk: queries whose scores exist at a time, None for all of them.
        loss_chunk: tokens whose logits exist at a time in a loss, None for all of them.
        source: the config that it was read from, as JSON; models that it doesn't make different
            are equal.
        layout: how it lies on several devices; None for one.
    """

    family: str
    config: Architecture
    dtype: str = "float32"
    remat: bool = False
    attention_chunk: Chunk = "auto"
    loss_chunk: Chunk = "auto"
    source: str = field(default="{}", compare=False, repr=False)
    layout: Layout | None = None

    @property
    def _module(self) -> Transformer:
        return Transformer(self.config, self.dtype, self.remat, self.attention_chunk, self.layout)

    def init(self, key: jax.Array) -> dict[str, Any]:
        """Fresh parameters, nested dictionaries of float32 arrays.

        Leaves below `layers` are stacked on axis 0; `names` says what checkpoints call them.
        """
        variables = replace(self, layout=None)._module.init(key, jnp.zeros((1, 1), jnp.int32))
        return dict(variables["params"])

    def init_shapes(self) -> dict[str, Any]:
        """What `init` gives without its values: a `jax.ShapeDtypeStruct` at each leaf."""
        return jax.tree.map(
            lambda leaf: leaf, _init_shapes(self, jax.config.read("jax_enable_x64"))
        )

    def hidden(
        self, params: Mapping[str, Any], tokens: jax.Array, documents: jax.Array | None = None
    ) -> jax.Array:
        """Features after the final norm, over what the config divides logits by.

        Args:
            params: nested dictionaries, as of `init`.
            tokens: integers, [batch, seq].
            documents: integers, [batch, seq]: each stretch of equal ones is a document, computed as
                if it stood alone; None for one document per sequence.

        Returns:
            [batch, seq, hidden].

        Raises:
            ValueError: as of `hidden_and_routing`.
        """
        return self.hidden_and_routing(params, tokens, documents)[0]

    def hidden_and_routing(
        self, params: Mapping[str, Any], tokens: jax.Array, documents: jax.Array | None = None
    ) -> tuple[jax.Array, Routing | None]:
        """As `hidden`, and what the routers of each layer did; None of a model without experts.

        Args:
            params: as of `hidden`.
            tokens: as of `hidden`.
            documents: as of `hidden`.

        Raises:
            ValueError: sequences are longer than the positions that the model has learned.
        """
        limit = self.config.max_position_embeddings
        if self.config.learned_positions and tokens.shape[1] > limit:
            raise ValueError(
                f"sequences of {tokens.shape[1]} tokens; the model has learned {limit} positions: "
                "cut them into shorter ones"
            )
        if self.layout is not None:
            params = self.layout.together(params)
        apply: Any = self._module.apply  # its type has what modules may change beside
        hidden, routing = apply({"params": params}, tokens, documents)
        divisor = self.config.logit_divisor
        if divisor is not None:
            hidden = hidden / jnp.asarray(divisor, hidden.dtype)
        return hidden, routing

    def unembedding(self, params: Mapping[str, Any]) -> jax.Array:
        """The weights from features to logits, [vocab, hidden] float32."""
        if self.layout is not None:
            params = self.layout.together(params)
        if self.config.tie_word_embeddings:
            return params["model"]["embed_tokens"]["weight"]
        return params["lm_head"]["weight"]

    def logits(
        self, params: Mapping[str, Any], tokens: jax.Array, documents: jax.Array | None = None
    ) -> jax.Array:
        """Logits of the next token, [batch, seq, vocab] in at least float32; see `hidden`."""
        hidden = self.hidden(params, tokens, documents)
        return unembed(hidden, self.unembedding(params), softcap=self.config.logit_softcap)

    def parts(self, rows: int) -> int:
        """How many parts a batch of so many rows is cut into; one where it lies on one device."""
        return 1 if self.layout is None or rows % self.layout.parts else self.layout.parts

    def names(self) -> dict[str, Any]:
        """Checkpoint names: like the parameters, with `ParameterNames` at the leaves."""
        naming = FAMILIES[self.family].checkpoint_name
        config = self.config
        return parameter_names(self.init_shapes(), naming, config.transposed, config.kinds)

    def shapes(self) -> dict[str, Shape]:
        """The shape of each parameter by its checkpoint name."""
        return shapes_by_name(self.names(), self.init_shapes())

    def config_json(self) -> dict[str, Any]:
        """The fields of the `config.json` that the model was read from."""
        return json.loads(self.source)


@functools.lru_cache(maxsize=64)
def _init_shapes(model: LanguageModel, double: bool) -> dict[str, Any]:
    """As of `init_shapes`, traced once for each model, and for each width of JAX's numbers."""
    return jax.eval_shape(lambda: model.init(jax.random.key(0)))  # a key would be computed


def unembed(hidden: jax.Array, unembedding: jax.Array, *, softcap: float | None) -> jax.Array:
    """Logits of hidden features, computed in their dtype, summed in at least float32.

    Args:
        hidden: features after the final norm, [..., hidden].
        unembedding: the weights from features to logits, [vocab, hidden].
        softcap: c of `c tanh(logit / c)`; None for none.

    Returns:
        [..., vocab].
    """
    logits = jax.lax.dot_general(
        hidden.reshape(-1, hidden.shape[-1]),
        unembedding.astype(hidden.dtype),
        (((1,), (1,)), ((), ())),
        preferred_element_type=jnp.promote_types(hidden.dtype, jnp.float32),
    )
    if softcap is not None:
        logits = softcap * jnp.tanh(logits / softcap)
    return logits.reshape(*hidden.shape[:-1], -1)


def config_faults(config: Mapping[str, Any], *, vocab_size: int) -> tuple[Fault, ...]:
    """All that is wrong with a model's config.

    Args:
        config: fields of a Hugging Face `config.json`.
        vocab_size: the tokenizer's.
    """
    found = read(config, vocab_size=vocab_size)
    return found if isinstance(found, tuple) else ()


def build(
    config: Mapping[str, Any],
    *,
    vocab_size: int | None = None,
    dtype: str = "float32",
    remat: bool = False,
    attention_chunk: Chunk = "auto",
    loss_chunk: Chunk = "auto",
    path: str = PATH,
) -> LanguageModel:
    """The model of a config.

    Args:
        config: fields of a Hugging Face `config.json`.
        vocab_size: the tokenizer's; the model's where the config has none. None for no tokenizer.
        dtype: compute type: `float32` or `bfloat16` (`float64` for checking derivatives).
        remat: recompute each block in the backward pass.
        attention_chunk: queries whose scores exist at a time: a number, None for all of them, or
            `auto` for a choice by size (`chunking.rows_at_a_time`).
        loss_chunk: likewise, tokens whose logits exist at a time in a loss.
        path: what faults call the config.

    Raises:
        RecipeError: with all faults of the config, of an unknown dtype and of the chunks.

    Warns:
        ConfigWarning: once, of all fields of the config that nothing reads.
    """
    found = read(config, vocab_size=vocab_size, path=path)
    faults = found if isinstance(found, tuple) else ()
    if dtype not in DTYPES:
        faults += (unknown("model.dtype", dtype, "choice", dtype, DTYPES),)
    for name, chunk in (("attention_chunk", attention_chunk), ("loss_chunk", loss_chunk)):
        if chunk is not None and not CHUNK.holds(chunk):
            faults += (Fault(f"model.{name}", chunk, f"must be {CHUNK.allowed}"),)
    if faults or isinstance(found, tuple):
        raise RecipeError("model", faults)
    if unread := passed_over(config):
        said = ", ".join(unread)
        warnings.warn(
            f"fields of the {config['model_type']} model's config that neither transformers nor "
            f"metatune reads, and that are passed over: {said}",
            ConfigWarning,
            stacklevel=1,  # one place, so that it is shown once, whoever builds the model
        )
    source = json.dumps(dict(config))
    return LanguageModel(
        config["model_type"], found, dtype, remat, attention_chunk, loss_chunk, source
    )
