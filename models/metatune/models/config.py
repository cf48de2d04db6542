"""A model's config: the fields of `config.json` that matter, checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from metatune.models import fields
from metatune.models.rope import Rope
from metatune.models.rope_config import SECTIONS, THETA, read_rope
from metatune.recipe.faults import Fault
from metatune.recipe.rules import Rule

PATH = "model.config"


@dataclass(frozen=True)
class LlamaConfig:
    """Fields that change logits or initialisation, named as in transformers' `LlamaConfig`.

    Attributes:
        hidden_size: features of the residual stream.
        intermediate_size: features within an MLP.
        num_hidden_layers: blocks.
        num_attention_heads: query heads.
        num_key_value_heads: key-value heads, each shared by as many query heads.
        head_dim: features of a head.
        vocab_size: rows of the embedding.
        rope: the rotary embedding.
        max_position_embeddings: the longest sequence that the model is meant for.
        rms_norm_eps: added to the mean square in a norm.
        attention_bias: whether the four projections of attention have biases.
        mlp_bias: whether the three of an MLP have.
        tie_word_embeddings: whether the embedding is the unembedding too.
        initializer_range: standard deviation of fresh matrices.
    """

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    rope: Rope
    max_position_embeddings: int = 2048
    rms_norm_eps: float = 1e-6
    attention_bias: bool = False
    mlp_bias: bool = False
    tie_word_embeddings: bool = False
    initializer_range: float = 0.02


# No defaults for these: transformers' would be a model of 7 billion parameters.
REQUIRED = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
READ: Mapping[str, Rule] = {
    **dict.fromkeys(REQUIRED, fields.SIZE),
    "num_key_value_heads": fields.SIZE,
    "head_dim": fields.SIZE,
    "vocab_size": fields.SIZE,
    "max_position_embeddings": fields.SIZE,
    "rms_norm_eps": fields.POSITIVE,
    "attention_bias": fields.FLAG,
    "mlp_bias": fields.FLAG,
    "tie_word_embeddings": fields.FLAG,
    "initializer_range": fields.POSITIVE,
}
"""Fields of `config.json` that become fields of `LlamaConfig`."""
FIXED: Mapping[str, Rule] = {
    "hidden_act": fields.only("silu"),
    "pretraining_tp": fields.only(1),
    "attention_dropout": fields.only(0),
    "rope_interleaved": fields.only(False),
    "is_encoder_decoder": fields.only(False),
}
"""Fields that would change logits at any other value."""
WITHOUT_EFFECT = frozenset(
    "_attn_implementation _name_or_path architectures bos_token_id chunk_size_feed_forward dtype "
    "eos_token_id id2label is_llama_config label2id model_type output_attentions "
    "output_hidden_states pad_token_id problem_type return_dict torch_dtype "
    "transformers.js_config transformers_version use_cache".split()
)
"""Fields of real files that change neither logits nor initialisation."""


def read_llama(config: Mapping[str, Any], vocab_size: int) -> LlamaConfig | tuple[Fault, ...]:
    """Reads a Llama config.

    Args:
        config: fields of `config.json`, in the spelling of transformers 4 or 5.
        vocab_size: the tokenizer's, for a config that has none.

    Returns:
        The config, or all its faults.
    """
    given = {name: value for name, value in config.items() if value is not None}
    ignored = {*WITHOUT_EFFECT, *SECTIONS, THETA}
    faults = fields.faults(PATH, given, {**READ, **FIXED}, REQUIRED, ignored)
    sound = {name: given[name] for name in READ if name in given and READ[name].holds(given[name])}
    values = {**_defaults(given, sound, vocab_size), **sound}
    faults += _relations(values, vocab_size)
    rope = read_rope(PATH, given, values["max_position_embeddings"])
    if isinstance(rope, tuple):
        faults += rope
    if faults or isinstance(rope, tuple):
        return tuple(faults)
    return LlamaConfig(**values, rope=rope)


def _defaults(
    given: Mapping[str, Any], sound: Mapping[str, Any], vocab_size: int
) -> dict[str, Any]:
    """Values of fields that weren't given; those of others follow only from sound fields."""
    defaults = {
        "vocab_size": vocab_size,
        "max_position_embeddings": LlamaConfig.max_position_embeddings,
    }
    hidden, heads = sound.get("hidden_size"), sound.get("num_attention_heads")
    if heads and "num_key_value_heads" not in given:
        defaults["num_key_value_heads"] = heads
    if hidden and heads and hidden % heads == 0 and "head_dim" not in given:
        defaults["head_dim"] = hidden // heads
    return defaults


def _relations(values: Mapping[str, Any], vocab_size: int) -> list[Fault]:
    """What is wrong between fields, as far as they are known."""
    faults = []
    hidden, heads = values.get("hidden_size"), values.get("num_attention_heads")
    shared, head_dim = values.get("num_key_value_heads"), values.get("head_dim")
    if hidden and heads and hidden % heads:
        problem = f"must be a multiple of num_attention_heads, {heads}"
        faults.append(Fault(f"{PATH}.hidden_size", hidden, problem, "change one of the two"))
    if heads and shared and heads % shared:
        problem = f"must divide num_attention_heads, {heads}"
        cure = "change one of the two, or leave it out for as many"
        faults.append(Fault(f"{PATH}.num_key_value_heads", shared, problem, cure))
    if head_dim and head_dim % 2:
        problem = "must be even, because rotary embeddings turn pairs of features"
        cure = "write an even one, or change hidden_size or num_attention_heads, whose ratio it is"
        faults.append(Fault(f"{PATH}.head_dim", head_dim, problem, cure))
    if values["vocab_size"] < vocab_size:
        problem = f"must be at least the tokenizer's vocabulary, {vocab_size}"
        cure = "raise it, or leave it out for the tokenizer's"
        faults.append(Fault(f"{PATH}.vocab_size", values["vocab_size"], problem, cure))
    return faults
