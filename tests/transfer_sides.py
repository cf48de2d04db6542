"""Sides of transfers that tests share: a small Llama, and others as its multiples."""

from typing import Any

from metatune.transfer import Side, of_config

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 17,
    "initializer_range": 0.02,
}
GPT2: dict[str, Any] = {
    "model_type": "gpt2",
    "n_embd": 8,
    "n_layer": 2,
    "n_head": 2,
    "vocab_size": 17,
}
NANOCHAT: dict[str, Any] = {**LLAMA, "model_type": "nanochat"}


def side(source: str = "proxy", config: dict[str, Any] | None = None, **changes: Any) -> Side:
    """A side; fields of `Side` that a training has are given by keyword, those of configs too."""
    training = {key: changes.pop(key) for key in [*changes] if key in TRAINING}
    return of_config(source, {**(config or LLAMA), **changes}, **training)


TRAINING = ("steps", "batch_size", "sequence_length", "tokenizer_sha256", "optimizer", "start")
