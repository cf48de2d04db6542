"""The layers that transformers are made of, in the layouts of Hugging Face checkpoints.

Parameters are float32 and are cast to the dtype that is computed in.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn

LORA_A, LORA_B = "lora_A", "lora_B"
"""Keys of an adapter's matrices beside the weight that it adapts."""


class Linear(nn.Module):
    """`x Wᵀ + b`, the weight [out, in], or [in, out] where `transposed`.

    Where the parameters hold an adapter, A [rank, in] and B [out, rank], `x Aᵀ Bᵀ` is added, so
    that neither B A nor a gradient of its size exists (Hu et al., LoRA, 2022).
    """

    features: int
    use_bias: bool
    stddev: float
    transposed: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [tokens, in] to [tokens, out]."""
        normal = nn.initializers.normal(self.stddev)
        shape = (self.features, x.shape[-1])
        weight = self.param(
            "weight", normal, shape[::-1] if self.transposed else shape, jnp.float32
        )
        inside = 0 if self.transposed else 1
        y = jax.lax.dot_general(x, weight.astype(x.dtype), (((1,), (inside,)), ((), ())))
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
            y = y + bias.astype(x.dtype)[None, :]
        if self.has_variable("params", LORA_A):
            for matrix in (LORA_A, LORA_B):
                factor = self.get_variable("params", matrix).astype(x.dtype)
                x = jax.lax.dot_general(x, factor, (((1,), (1,)), ((), ())))
            y = y + x
        return y


class Embedding(nn.Module):
    """A vector for each token, or for each position."""

    rows: int
    features: int
    stddev: float

    @nn.compact
    def __call__(self, indices: jax.Array, dtype: jnp.dtype) -> jax.Array:
        """Maps [batch, seq] integers to [batch, seq, features]."""
        normal = nn.initializers.normal(self.stddev)
        weight = self.param("weight", normal, (self.rows, self.features), jnp.float32)
        # Taken before cast: the gradient of a frequent token sums thousands of terms in float32.
        return weight[indices].astype(dtype)


class RMSNorm(nn.Module):
    """Root-mean-square norm (Zhang & Sennrich, 2019), its statistics in at least float32."""

    eps: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises the last axis."""
        weight = self.param("weight", nn.initializers.ones, (x.shape[-1],), jnp.float32)
        normed = _over_root_mean_square(_wide(x), self.eps).astype(x.dtype)
        return _along_last(weight.astype(x.dtype), x) * normed


class CentredRMSNorm(nn.Module):
    """Gemma's: the weight is an offset from one, applied before the result is cast back."""

    eps: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises the last axis."""
        weight = self.param("weight", nn.initializers.zeros, (x.shape[-1],), jnp.float32)
        normed = _over_root_mean_square(_wide(x), self.eps)
        return (normed * _along_last(1 + weight.astype(normed.dtype), x)).astype(x.dtype)


class PlainRMSNorm(nn.Module):
    """Root-mean-square norm without weights."""

    eps: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises the last axis."""
        return _over_root_mean_square(_wide(x), self.eps).astype(x.dtype)


class LayerNorm(nn.Module):
    """Layer norm (Ba et al., 2016), computed in at least float32."""

    eps: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises the last axis."""
        weight = self.param("weight", nn.initializers.ones, (x.shape[-1],), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],), jnp.float32)
        wide = _wide(x)
        normed = _over_root_mean_square(wide - jnp.mean(wide, axis=-1, keepdims=True), self.eps)
        weight, bias = (_along_last(p.astype(wide.dtype), x) for p in (weight, bias))
        return (normed * weight + bias).astype(x.dtype)


Norm = type[RMSNorm] | type[CentredRMSNorm] | type[PlainRMSNorm] | type[LayerNorm]
NORMS: Mapping[str, Norm] = {
    "rms": RMSNorm,
    "centred_rms": CentredRMSNorm,
    "plain_rms": PlainRMSNorm,
    "layer": LayerNorm,
}
"""By the names in `Architecture.norm`."""


class Head(nn.Module):
    """The weights from hidden features to logits, where they aren't the embedding's."""

    vocab_size: int
    stddev: float

    @nn.compact
    def __call__(self, hidden_size: int) -> jax.Array:
        """The weights, [vocab, hidden]."""
        normal = nn.initializers.normal(self.stddev)
        return self.param("weight", normal, (self.vocab_size, hidden_size), jnp.float32)


def _wide(x: jax.Array) -> jax.Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _over_root_mean_square(x: jax.Array, eps: float) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + eps)


def _along_last(vector: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.expand_dims(vector, range(x.ndim - 1))
