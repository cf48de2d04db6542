"""The Llama architecture (Touvron et al., 2023).

Weights have the layout of Hugging Face checkpoints, [out, in]. Tokens are merged into one dimension
around every projection: XLA on CPU contracts one dimension faster than two in a weight's gradient.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from metatune.models.attention import attention
from metatune.models.chunking import rows_at_a_time
from metatune.models.config import LlamaConfig
from metatune.models.rope import rotate, tables
from metatune.recipe.schema import Chunk


class Linear(nn.Module):
    """`x Wᵀ + b`, the weight [out, in] in float32, computed in the dtype of x."""

    features: int
    use_bias: bool
    stddev: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [tokens, in] to [tokens, out]."""
        normal = nn.initializers.normal(self.stddev)
        weight = self.param("weight", normal, (self.features, x.shape[-1]), jnp.float32)
        y = jax.lax.dot_general(x, weight.astype(x.dtype), (((1,), (1,)), ((), ())))
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
            y = y + bias.astype(x.dtype)[None, :]
        return y


class RMSNorm(nn.Module):
    """Root-mean-square norm (Zhang & Sennrich, 2019), its statistics in at least float32."""

    eps: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises the last axis."""
        weight = self.param("weight", nn.initializers.ones, (x.shape[-1],), jnp.float32)
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        variance = jnp.mean(wide * wide, axis=-1, keepdims=True)
        normed = (wide * jax.lax.rsqrt(variance + self.eps)).astype(x.dtype)
        return jnp.expand_dims(weight.astype(x.dtype), range(x.ndim - 1)) * normed


class Attention(nn.Module):
    """Causal self-attention with rotary positions and grouped queries (Ainslie et al., 2023)."""

    config: LlamaConfig
    chunk: Chunk

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [batch, seq, hidden] to the same shape."""
        c = self.config
        batch, length, hidden = x.shape
        flat = x.reshape(-1, hidden)
        grouped = c.num_attention_heads // c.num_key_value_heads

        def project(name: str, heads: int) -> jax.Array:
            linear = Linear(heads * c.head_dim, c.attention_bias, c.initializer_range, name=name)
            return linear(flat).reshape(batch, length, heads, c.head_dim)

        q = project("q_proj", c.num_attention_heads)
        k = project("k_proj", c.num_key_value_heads)
        v = project("v_proj", c.num_key_value_heads)
        cos, sin = tables(c.rope, c.head_dim, length)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        # Head-major; queries that share a key-value head lie side by side.
        q = q.reshape(batch, length, c.num_key_value_heads, grouped, c.head_dim)
        q = q.transpose(0, 2, 3, 1, 4)
        k, v = k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3)
        columns = batch * c.num_attention_heads * length
        chunk = rows_at_a_time(self.chunk, rows=length, columns=columns)
        out = attention(q, k, v, chunk=chunk)
        out = out.transpose(0, 3, 1, 2, 4).reshape(batch * length, -1)
        out = Linear(hidden, c.attention_bias, c.initializer_range, name="o_proj")(out)
        return out.reshape(x.shape)


class MLP(nn.Module):
    """Gated feed-forward layer (Shazeer, 2020): `down(silu(gate x) * up x)`."""

    config: LlamaConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [batch, seq, hidden] to the same shape."""
        c = self.config

        def project(name: str, features: int, x: jax.Array) -> jax.Array:
            return Linear(features, c.mlp_bias, c.initializer_range, name=name)(x)

        flat = x.reshape(-1, x.shape[-1])
        gate = jax.nn.silu(project("gate_proj", c.intermediate_size, flat))
        up = project("up_proj", c.intermediate_size, flat)
        return project("down_proj", c.hidden_size, gate * up).reshape(x.shape)


class Block(nn.Module):
    """Attention and MLP, each after a norm and around a residual."""

    config: LlamaConfig
    attention_chunk: Chunk

    @nn.compact
    def __call__(self, x: jax.Array, _: None) -> tuple[jax.Array, None]:
        """Maps [batch, seq, hidden] to the same shape; a body for `nn.scan`."""
        c = self.config
        normed = RMSNorm(c.rms_norm_eps, name="input_layernorm")(x)
        x = x + Attention(c, self.attention_chunk, name="self_attn")(normed)
        normed = RMSNorm(c.rms_norm_eps, name="post_attention_layernorm")(x)
        return x + MLP(c, name="mlp")(normed), None


class Embedding(nn.Module):
    """A vector for each token."""

    vocab_size: int
    features: int
    stddev: float

    @nn.compact
    def __call__(self, tokens: jax.Array, dtype: jnp.dtype) -> jax.Array:
        """Maps [batch, seq] integers to [batch, seq, features]."""
        normal = nn.initializers.normal(self.stddev)
        weight = self.param("weight", normal, (self.vocab_size, self.features), jnp.float32)
        # Taken before cast: the gradient of a frequent token sums thousands of terms in float32.
        return weight[tokens].astype(dtype)


class LlamaModel(nn.Module):
    """Embedding, blocks, final norm."""

    config: LlamaConfig
    dtype: str
    remat: bool
    attention_chunk: Chunk

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Maps [batch, seq] integers to [batch, seq, hidden]."""
        c = self.config
        embed = Embedding(c.vocab_size, c.hidden_size, c.initializer_range, name="embed_tokens")
        block = nn.remat(Block, prevent_cse=False) if self.remat else Block
        layers = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=c.num_hidden_layers,
        )
        x, _ = layers(c, self.attention_chunk, name="layers")(
            embed(tokens, jnp.dtype(self.dtype)), None
        )
        return RMSNorm(c.rms_norm_eps, name="norm")(x)


class Head(nn.Module):
    """The weights from hidden features to logits, where they aren't the embedding's."""

    vocab_size: int
    stddev: float

    @nn.compact
    def __call__(self, hidden_size: int) -> jax.Array:
        """The weights, [vocab, hidden]."""
        normal = nn.initializers.normal(self.stddev)
        return self.param("weight", normal, (self.vocab_size, hidden_size), jnp.float32)


class Llama(nn.Module):
    """The language model: parameters below `model` and, if untied, `lm_head`."""

    config: LlamaConfig
    dtype: str
    remat: bool
    attention_chunk: Chunk

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Maps [batch, seq] integers to [batch, seq, hidden], after the final norm."""
        c = self.config
        if not c.tie_word_embeddings:
            Head(c.vocab_size, c.initializer_range, name="lm_head")(c.hidden_size)
        body = LlamaModel(c, self.dtype, self.remat, self.attention_chunk, name="model")
        return body(tokens)
