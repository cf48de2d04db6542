"""A model's config: the fields of `config.json`, checked."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from metatune.models.rope import SCALINGS, Rope
from metatune.recipe.faults import Fault

PATH = "model.config"


@dataclass(frozen=True)
class LlamaConfig:
    """Fields that change logits or initialisation, named as in transformers' `LlamaConfig`."""

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
    hidden_act: str = "silu"
    attention_bias: bool = False
    mlp_bias: bool = False
    tie_word_embeddings: bool = False
    initializer_range: float = 0.02


REQUIRED = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
SIZES = (*REQUIRED, "num_key_value_heads", "head_dim", "vocab_size", "max_position_embeddings")
POSITIVE = ("rms_norm_eps", "initializer_range")
FLAGS = ("attention_bias", "mlp_bias", "tie_word_embeddings")
ROPE = ("rope_parameters", "rope_scaling", "rope_theta")
ROPE_KEYS = {field.name for field in fields(Rope)} | {"type"}
ONLY = {
    "hidden_act": ("silu",),
    "pretraining_tp": (1,),
    "attention_dropout": (0,),
    "rope_interleaved": (False,),
    "quantization_config": (None,),
}
"""Fields that are understood at these values alone."""
WITHOUT_EFFECT = frozenset(
    "_name_or_path _attn_implementation architectures bos_token_id dtype eos_token_id "
    "is_llama_config pad_token_id return_dict torch_dtype transformers.js_config "
    "transformers_version use_cache".split()
)
"""Fields of real files that change neither logits nor initialisation."""


def llama(config: Mapping[str, Any], vocab_size: int) -> LlamaConfig | tuple[Fault, ...]:
    """Reads a Llama config.

    Args:
        config: fields of `config.json`, in the spelling of transformers 4 or 5.
        vocab_size: the tokenizer's, for a config that has none.

    Returns:
        The config, or all its faults.
    """
    faults = [*_unknown(config), *_types(config), *_unsupported(config), *_rope_faults(config)]
    faults += [
        Fault(f"{PATH}.{key}", None, "is missing", "give it: it sets the model's size")
        for key in REQUIRED
        if config.get(key) is None
    ]
    if faults:
        return tuple(faults)
    given = {key: value for key, value in config.items() if value is not None}
    heads = given["num_attention_heads"]
    sizes = {
        "num_key_value_heads": heads,
        "head_dim": given["hidden_size"] // heads,
        "vocab_size": vocab_size,
        **given,
    }
    faults = _shapes(config, sizes, vocab_size)
    if faults:
        return tuple(faults)
    known = {field.name for field in fields(LlamaConfig)} - {"rope"}
    return LlamaConfig(
        **{key: value for key, value in sizes.items() if key in known}, rope=_rope(given)
    )


def _unknown(config: Mapping[str, Any]) -> list[Fault]:
    known = {*SIZES, *POSITIVE, *FLAGS, *ROPE, *ONLY, "model_type"}
    faults = []
    for key in config:
        if key not in known and key not in WITHOUT_EFFECT:
            near = difflib.get_close_matches(str(key), known, n=1)
            cure = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(known))}"
            faults.append(Fault(f"{PATH}.{key}", config[key], "unknown field of a llama", cure))
    return faults


def _types(config: Mapping[str, Any]) -> list[Fault]:
    rules: list[tuple[tuple[str, ...], Callable[[Any], bool], str]] = [
        (SIZES, lambda v: _is_int(v) and v >= 1, "must be a whole number of 1 or above"),
        (POSITIVE, lambda v: _is_number(v) and v > 0, "must be a number above 0"),
        (FLAGS, lambda v: isinstance(v, bool), "must be true or false"),
    ]
    return [
        Fault(f"{PATH}.{key}", config[key], problem, "correct it")
        for keys, holds, problem in rules
        for key in keys
        if config.get(key) is not None and not holds(config[key])
    ]


def _unsupported(config: Mapping[str, Any]) -> list[Fault]:
    return [
        Fault(
            f"{PATH}.{key}",
            config[key],
            f"is not supported; allowed is {', '.join(map(repr, allowed))}",
            "use a model without it",
        )
        for key, allowed in ONLY.items()
        if key in config and config[key] not in allowed
    ]


def _rope_fields(config: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The field that holds the rotary embedding's numbers, and these."""
    key = "rope_parameters" if config.get("rope_parameters") is not None else "rope_scaling"
    return key, config.get(key) or {}


def _rope_faults(config: Mapping[str, Any]) -> list[Fault]:
    theta = config.get("rope_theta")
    faults = []
    if theta is not None and not (_is_number(theta) and theta > 0):
        faults.append(Fault(f"{PATH}.rope_theta", theta, "must be a number above 0", "correct it"))
    key, scaling = _rope_fields(config)
    if not isinstance(scaling, Mapping):
        return [*faults, Fault(f"{PATH}.{key}", scaling, "must be a mapping", "correct it")]
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind not in SCALINGS:
        allowed = ", ".join(SCALINGS)
        problem = f"is not supported; allowed are {allowed}"
        faults.append(Fault(f"{PATH}.{key}.rope_type", kind, problem, "use a model without it"))
    for name, value in scaling.items():
        where = f"{PATH}.{key}.{name}"
        if name not in ROPE_KEYS:
            allowed = ", ".join(sorted(ROPE_KEYS))
            faults.append(Fault(where, value, f"unknown; allowed are {allowed}", "remove it"))
        elif name not in ("rope_type", "type") and not (_is_number(value) and value > 0):
            faults.append(Fault(where, value, "must be a number above 0", "correct it"))
    return faults


def _rope(config: Mapping[str, Any]) -> Rope:
    _, scaling = _rope_fields(config)
    numbers = {"rope_theta": config.get("rope_theta", Rope.rope_theta), **scaling}
    kind = numbers.pop("type", None)
    return Rope(**{"rope_type": kind or "default", **numbers})


def _shapes(config: Mapping[str, Any], sizes: Mapping[str, Any], vocab_size: int) -> list[Fault]:
    faults = []
    hidden, heads = sizes["hidden_size"], sizes["num_attention_heads"]
    shared = sizes["num_key_value_heads"]
    if config.get("head_dim") is None and hidden % heads:
        faults.append(
            Fault(
                f"{PATH}.hidden_size",
                hidden,
                f"is no multiple of num_attention_heads = {heads}",
                "make it one, or give head_dim",
            )
        )
    elif sizes["head_dim"] % 2:
        faults.append(
            Fault(
                f"{PATH}.head_dim",
                sizes["head_dim"],
                "must be even: rotary embeddings turn pairs of features",
                "change hidden_size or num_attention_heads, or give head_dim",
            )
        )
    if heads % shared:
        faults.append(
            Fault(
                f"{PATH}.num_key_value_heads",
                shared,
                f"does not divide num_attention_heads = {heads}",
                "give a divisor",
            )
        )
    if sizes["vocab_size"] < vocab_size:
        faults.append(
            Fault(
                f"{PATH}.vocab_size",
                sizes["vocab_size"],
                f"is smaller than the tokenizer's vocabulary of {vocab_size}",
                f"give {vocab_size} or above, or leave it out",
            )
        )
    return faults


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
