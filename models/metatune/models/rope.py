"""Rotary position embeddings (Su et al., 2021), in Hugging Face's rotate-half convention."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


@dataclass(frozen=True)
class Rope:
    """How positions are turned into angles; the fields are those of `rope_parameters`.

    Attributes:
        rope_type: `default`, `linear` (Chen et al., 2023) or `llama3` (Llama 3.1).
        rope_theta: base of the geometric progression of wavelengths.
        factor: by how much positions are stretched.
        low_freq_factor: with `original_max_position_embeddings`, from which wavelength on all is
            stretched.
        high_freq_factor: likewise, up to which wavelength nothing is.
        original_max_position_embeddings: the context that the model was first trained with.
    """

    rope_type: str = "default"
    rope_theta: float = 10000.0
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int = 8192


def inverse_frequencies(rope: Rope, head_dim: int) -> np.ndarray:
    """Radians per position of each pair of features, [head_dim / 2] float32."""
    plain = rope.rope_theta ** -(np.arange(0, head_dim, 2, dtype=np.float32) / head_dim)
    return SCALINGS[rope.rope_type].stretch(rope, plain).astype(np.float32)


def _default(rope: Rope, frequencies: np.ndarray) -> np.ndarray:
    return frequencies


def _linear(rope: Rope, frequencies: np.ndarray) -> np.ndarray:
    return frequencies / rope.factor


def _llama3(rope: Rope, frequencies: np.ndarray) -> np.ndarray:
    """Stretches long wavelengths, leaves short ones, and goes smoothly between."""
    turns = rope.original_max_position_embeddings * frequencies / (2 * math.pi)
    smooth = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    smooth = np.clip(smooth, 0, 1)
    return frequencies * (smooth + (1 - smooth) / rope.factor)


class Scaling(NamedTuple):
    """A way to make a model's rotary embedding reach further.

    Attributes:
        stretch: `(rope, frequencies) -> frequencies`.
        fields: those of `Rope` that it needs.
    """

    stretch: Callable[[Rope, np.ndarray], np.ndarray]
    fields: tuple[str, ...]


SCALINGS: Mapping[str, Scaling] = {
    "default": Scaling(_default, ()),
    "linear": Scaling(_linear, ("factor",)),
    "llama3": Scaling(
        _llama3,
        (
            "factor",
            "low_freq_factor",
            "high_freq_factor",
            "original_max_position_embeddings",
        ),
    ),
}
"""By `rope_type`; a new one is a new row."""


def tables(rope: Rope, head_dim: int, length: int) -> tuple[jax.Array, jax.Array]:
    """Cosine and sine of the angles, [length, head_dim] float32 each."""
    angles = np.outer(np.arange(length, dtype=np.float32), inverse_frequencies(rope, head_dim))
    angles = np.concatenate([angles, angles], axis=-1)
    return jnp.asarray(np.cos(angles)), jnp.asarray(np.sin(angles))


def rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """Rotates pairs of features by their position's angles.

    Args:
        x: [batch, seq, heads, head_dim]; feature i is paired with i + head_dim / 2.
        cos: [seq, head_dim].
        sin: [seq, head_dim].
    """
    first, second = jnp.split(x, 2, axis=-1)
    turned = jnp.concatenate([-second, first], axis=-1)
    cos, sin = (table[None, :, None, :].astype(x.dtype) for table in (cos, sin))
    return x * cos + turned * sin
