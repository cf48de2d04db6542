"""Causal attention, its scores whole or a chunk of queries at a time."""

import jax
import jax.numpy as jnp

from metatune.models.chunking import map_rows

MASKED = -1e9
"""Score of a masked position: finite, so that second derivatives are."""


def attention(q: jax.Array, k: jax.Array, v: jax.Array, *, chunk: int | None) -> jax.Array:
    """Causal attention of grouped queries: `softmax(q kᵀ / √d) v` over the keys up to each query.

    Scores are softmaxed in at least float32. With a chunk, scores of [batch, kv_heads, group,
    chunk, seq] exist at a time, and are computed again in the backward pass; without, all of them.

    Args:
        q: queries, [batch, kv_heads, group, seq, d]; those of a group share keys and values.
        k: keys, [batch, kv_heads, seq, d].
        v: values, [batch, kv_heads, seq, d].
        chunk: queries at a time, each against all keys; None for all of them.

    Returns:
        [batch, kv_heads, group, seq, d].

    Source: Rabe & Staats, Self-attention Does Not Need O(n²) Memory, 2021, chunking the queries.
    """
    positions = jnp.arange(q.shape[3])
    if chunk is None:
        return _attend(q, k, v, positions)
    # Held in float32, because the gradients of keys and values sum over the chunks in their dtype.
    wide = jnp.promote_types(q.dtype, jnp.float32)
    wide_k, wide_v = k.astype(wide), v.astype(wide)

    def rows(q: jax.Array, positions: jax.Array) -> jax.Array:
        keys, values = wide_k.astype(k.dtype), wide_v.astype(v.dtype)
        return jnp.moveaxis(_attend(jnp.moveaxis(q, 0, 3), keys, values, positions), 3, 0)

    return jnp.moveaxis(map_rows(rows, (jnp.moveaxis(q, 3, 0), positions), chunk), 0, 3)


def _attend(q: jax.Array, k: jax.Array, v: jax.Array, positions: jax.Array) -> jax.Array:
    """Attention of the queries at `positions`, [queries], to all keys up to them."""
    scores = jnp.einsum("bkgqd,bksd->bkgqs", q, k) * q.shape[-1] ** -0.5
    scores = scores.astype(jnp.promote_types(q.dtype, jnp.float32))
    causal = positions[:, None] >= jnp.arange(k.shape[2])[None, :]
    scores = jnp.where(causal[None, None, None], scores, MASKED)
    weights = jax.nn.softmax(scores, axis=-1).astype(q.dtype)
    return jnp.einsum("bkgqs,bksd->bkgqd", weights, v)
