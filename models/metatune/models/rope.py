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
        rope_type: `default`, or one of `SCALINGS`.
        rope_theta: base of the geometric progression of wavelengths.
        factor: by how much positions are stretched.
        low_freq_factor: with `original_max_position_embeddings`, from which wavelength on all is
            stretched.
        high_freq_factor: likewise, up to which wavelength nothing is.
        original_max_position_embeddings: the context that the model was first trained with.
        partial_rotary_factor: share of a head's features that is rotated, the first ones.
        beta_fast: turns within that context from which on nothing is stretched.
        beta_slow: likewise, up to which all is.
        mscale: of `attention_factor` where there is none: what grows with the factor's logarithm.
        mscale_all_dim: likewise, what that is divided by.
        attention_factor: of cosine and sine, so that scores grow with its square; None for that of
            the type.
        truncate: whether the pairs of features between which stretching sets in are whole numbers.
        short_factor: what each pair's wavelength is stretched by in sequences up to that context.
        long_factor: likewise, in longer ones.
        llama_4_scaling_beta: queries at position p are multiplied by `1 + β log(1 + ⌊p / c⌋)`, with
            c that context; None for not.
    """

    rope_type: str = "default"
    rope_theta: float = 10000.0
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int = 8192
    partial_rotary_factor: float = 1.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float | None = None
    mscale_all_dim: float | None = None
    attention_factor: float | None = None
    truncate: bool = True
    short_factor: tuple[float, ...] = ()
    long_factor: tuple[float, ...] = ()
    llama_4_scaling_beta: float | None = None

    @property
    def follows_length(self) -> bool:
        """Whether its angles depend on how long the sequence is."""
        return SCALINGS[self.rope_type].by_length

    @property
    def amplitude(self) -> float:
        """The factor of cosine and sine."""
        if self.attention_factor is not None:
            return self.attention_factor
        return SCALINGS[self.rope_type].amplitude(self)


def inverse_frequencies(rope: Rope, head_dim: int, length: int = 1) -> np.ndarray:
    """Radians per position of each pair of rotated features, [rotated / 2] float32.

    Args:
        rope: the rotary embedding.
        head_dim: features of a head.
        length: tokens of the sequence, which some rotary embeddings follow.
    """
    rotated = rotated_features(rope, head_dim)
    scaling = SCALINGS[rope.rope_type]
    theta = scaling.theta(rope, rotated, length)
    plain = theta ** -(np.arange(0, rotated, 2, dtype=np.float32) / rotated)
    return scaling.stretch(rope, plain, length).astype(np.float32)


def rotated_features(rope: Rope, head_dim: int) -> int:
    """How many of a head's features are rotated."""
    return int(head_dim * rope.partial_rotary_factor)


def _default(rope: Rope, frequencies: np.ndarray, length: int) -> np.ndarray:
    return frequencies


def _linear(rope: Rope, frequencies: np.ndarray, length: int) -> np.ndarray:
    return frequencies / rope.factor


def _llama3(rope: Rope, frequencies: np.ndarray, length: int) -> np.ndarray:
    """Stretches long wavelengths, leaves short ones, and goes smoothly between."""
    turns = rope.original_max_position_embeddings * frequencies / (2 * math.pi)
    smooth = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    smooth = np.clip(smooth, 0, 1)
    return frequencies * (smooth + (1 - smooth) / rope.factor)


def _yarn(rope: Rope, frequencies: np.ndarray, length: int) -> np.ndarray:
    """Stretches pairs that turn slowly, leaves fast ones, and goes linearly over those between.

    Source: Peng et al., YaRN: Efficient Context Window Extension of Large Language Models, 2023,
    section 3.2, the ramp over the pairs' numbers.
    """
    pairs = len(frequencies)

    def pair_of(turns: float) -> float:
        """The pair that turns so often within the first context."""
        wavelength = rope.original_max_position_embeddings / (turns * 2 * math.pi)
        return pairs * math.log(wavelength) / math.log(rope.rope_theta)

    first, last = pair_of(rope.beta_fast), pair_of(rope.beta_slow)
    if rope.truncate:
        first, last = math.floor(first), math.ceil(last)
    # Up to 2 pairs - 1, the last feature, and not the last pair: as transformers has it.
    first, last = max(first, 0), min(last, 2 * pairs - 1)
    width = last - first or 0.001  # else nothing divided by nothing at the one pair
    stretched = np.clip((np.arange(pairs, dtype=np.float32) - first) / width, 0, 1)
    return frequencies * (1 - stretched + stretched / rope.factor)


def _yarn_amplitude(rope: Rope) -> float:
    """Source: Peng et al., 2023, equation 15; two scales as of DeepSeek-V2, 2024."""

    def grown(scale: float) -> float:
        return 0.1 * scale * math.log(rope.factor) + 1 if rope.factor > 1 else 1.0

    if rope.mscale and rope.mscale_all_dim:
        return grown(rope.mscale) / grown(rope.mscale_all_dim)
    return grown(1)


def _longrope(rope: Rope, frequencies: np.ndarray, length: int) -> np.ndarray:
    """Stretches each pair by a number of its own, another one beyond the first context.

    Source: Ding et al., LongRoPE: Extending LLM Context Window Beyond 2 Million Tokens, 2024.
    """
    longer = length > rope.original_max_position_embeddings
    return frequencies / np.array(rope.long_factor if longer else rope.short_factor, np.float32)


def _longrope_amplitude(rope: Rope) -> float:
    if rope.factor <= 1:
        return 1.0
    context = rope.original_max_position_embeddings
    return math.sqrt(1 + math.log(rope.factor) / math.log(context))


def _unscaled(rope: Rope, rotated: int, length: int) -> float:
    return rope.rope_theta


def _grown_theta(rope: Rope, rotated: int, length: int) -> float:
    """Theta of sequences beyond the context: the slowest pair is stretched by as much as needed.

    Source: transformers' `dynamic`, NTK-aware scaling by the length.
    """
    beyond = max(length / rope.original_max_position_embeddings, 1)
    return rope.rope_theta * (rope.factor * beyond - (rope.factor - 1)) ** (rotated / (rotated - 2))


def _one(rope: Rope) -> float:
    return 1.0


class Scaling(NamedTuple):
    """A way to make a model's rotary embedding reach further.

    Attributes:
        stretch: `(rope, frequencies, length) -> frequencies`.
        fields: those of `Rope` that it needs.
        optional: further ones that it reads.
        theta: `(rope, rotated features, length) -> base of the frequencies`.
        amplitude: the factor of cosine and sine, where the config doesn't say.
        by_length: whether frequencies depend on the length of the sequence.
    """

    stretch: Callable[[Rope, np.ndarray, int], np.ndarray]
    fields: tuple[str, ...]
    optional: tuple[str, ...] = ()
    theta: Callable[[Rope, int, int], float] = _unscaled
    amplitude: Callable[[Rope], float] = _one
    by_length: bool = False


SCALINGS: Mapping[str, Scaling] = {
    "default": Scaling(_default, ()),
    "linear": Scaling(_linear, ("factor",)),
    "dynamic": Scaling(_default, ("factor",), theta=_grown_theta, by_length=True),
    "yarn": Scaling(
        _yarn,
        ("factor", "original_max_position_embeddings"),
        (
            "attention_factor",
            "beta_fast",
            "beta_slow",
            "mscale",
            "mscale_all_dim",
            "truncate",
        ),
        amplitude=_yarn_amplitude,
    ),
    "longrope": Scaling(
        _longrope,
        ("short_factor", "long_factor", "original_max_position_embeddings"),
        ("factor", "attention_factor"),
        amplitude=_longrope_amplitude,
        by_length=True,
    ),
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
    frequencies = inverse_frequencies(rope or like, head_dim, length)
    frequencies *= np.float32(rope is not None)
    angles = np.outer(np.arange(length, dtype=np.float32), frequencies)
    angles = np.concatenate([angles, angles], axis=-1)
    amplitude = np.float32(1.0 if rope is None else rope.amplitude)
    return np.cos(angles) * amplitude, np.sin(angles) * amplitude


def by_document(
    rope: Rope, head_dim: int, positions: jax.Array, lengths: jax.Array, longest: int
) -> tuple[jax.Array, jax.Array]:
    """Cosine and sine where each document's length decides, [batch, seq, rotated] float32 each.

    Args:
        rope: one that follows the length of sequences.
        head_dim: features of a head.
        positions: of tokens within their documents, [batch, seq].
        lengths: of those documents, [batch, seq].
        longest: what no length is beyond.
    """
    context = rope.original_max_position_embeddings  # up to which all lengths are alike
    each = [inverse_frequencies(rope, head_dim, n) for n in range(context, longest + 1)]
    found, row_of = np.unique(np.stack(each), axis=0, return_inverse=True)
    row = jnp.asarray(row_of.reshape(-1))[jnp.maximum(lengths - context, 0)]
    angles = positions[..., None].astype(jnp.float32) * jnp.asarray(found)[row]
    angles = jnp.concatenate([angles, angles], axis=-1)
    return jnp.cos(angles) * rope.amplitude, jnp.sin(angles) * rope.amplitude


def query_factors(rope: Rope | None, length: int) -> np.ndarray:
    """What queries at each position are multiplied by, [length] float32.

    Source: Meta AI, Llama 4, 2025, whose models attend to far tokens so.
    """
    beta = None if rope is None else rope.llama_4_scaling_beta
    if rope is None or beta is None:
        return np.ones(length, np.float32)
    stretches = np.arange(length) // rope.original_max_position_embeddings
    return (1 + beta * np.log1p(stretches)).astype(np.float32)


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
