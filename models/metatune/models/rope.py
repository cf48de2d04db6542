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
        partial_rotary_factor: share of a head's features that is rotated, the first ones.
    """

    rope_type: str = "default"
    rope_theta: float = 10000.0
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int = 8192
    partial_rotary_factor: float = 1.0


def inverse_frequencies(rope: Rope, head_dim: int) -> np.ndarray:
    """Radians per position of each pair of rotated features, [rotated / 2] float32."""
    rotated = rotated_features(rope, head_dim)
    plain = rope.rope_theta ** -(np.arange(0, rotated, 2, dtype=np.float32) / rotated)
    return SCALINGS[rope.rope_type].stretch(rope, plain).astype(np.float32)


def rotated_features(rope: Rope, head_dim: int) -> int:
    """How many of a head's features are rotated."""
    return int(head_dim * rope.partial_rotary_factor)


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


def tables(
    rope: Rope | None, like: Rope, head_dim: int, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine of the angles, [length, rotated] float32 each.

    Args:
        rope: the rotary embedding; None for one whose angles are all zero.
        like: the one that tells how many features are rotated.
        head_dim: features of a head.
        length: positions.
    """
    frequencies = inverse_frequencies(rope or like, head_dim) * np.float32(rope is not None)
    angles = np.outer(np.arange(length, dtype=np.float32), frequencies)
    angles = np.concatenate([angles, angles], axis=-1)
    return np.cos(angles), np.sin(angles)


def rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """Rotates pairs of features by their position's angles, as many as there are angles for.

    Args:
        x: [batch, seq, heads, head_dim]; feature i is paired with i + rotated / 2.
        cos: [batch or 1, seq, rotated].
        sin: [batch or 1, seq, rotated].
    """
    rotated = cos.shape[-1]
    cos, sin = (table[:, :, None, :].astype(x.dtype) for table in (cos, sin))
    turning, rest = x[..., :rotated], x[..., rotated:]
    first, second = jnp.split(turning, 2, axis=-1)
    turned = turning * cos + jnp.concatenate([-second, first], axis=-1) * sin
    return jnp.concatenate([turned, rest], axis=-1) if rest.shape[-1] else turned
