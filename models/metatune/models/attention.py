"""Causal attention, its scores whole or a chunk of queries at a time."""

import jax
import jax.numpy as jnp

from metatune.models.chunking import map_rows

MASKED = -1e9
"""Score of a masked position: finite, so that second derivatives are."""

STRETCHES, SHORTEST = 4, 256
"""Queries are taken in so many stretches at most, of so many queries at least, each of them against
the keys up to its own end: of long sequences, three eighths of the scores are never computed."""


def attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    *,
    scale: jax.typing.ArrayLike,
    softcap: float | None = None,
    window: jax.typing.ArrayLike | None = None,
    documents: jax.Array | None = None,
    sinks: jax.Array | None = None,
    chunk: int | None,
) -> jax.Array:
    """Causal attention of grouped queries: `softmax(scale q kᵀ) v` over the keys up to each query.

    Scores are softmaxed in at least float32. With a chunk, scores of [batch, kv_heads, group,
    chunk, seq] exist at a time, and are computed again in the backward pass; without, those of all
    queries do.

    Args:
        q: queries, [batch, kv_heads, group, seq, d]; those of a group share keys and values.
        k: keys, [batch, kv_heads, seq, d].
        v: values, [batch, kv_heads, seq, d].
        scale: factor of the scores.
        softcap: c of `c tanh(score / c)` (Gemma Team, 2024); None for none.
        window: keys that a query attends to, its own included; None for all up to its own.
        documents: integers, [batch, seq]: keys of other documents are not attended to.
        sinks: of each head, [kv_heads, group]: the score of one more key whose value is nothing,
            neither scaled nor capped (Xiao et al., 2023); None for none.
        chunk: queries at a time; None for all of them.

    Returns:
        [batch, kv_heads, group, seq, d].

    Source: Rabe & Staats, Self-attention Does Not Need O(n²) Memory, 2021, chunking the queries.
    """
    length = k.shape[2]
    size = -(-length // max(1, min(STRETCHES, length // SHORTEST)))
    mixed = []
    for start in range(0, length, size):
        end = min(start + size, length)
        mixed.append(
            _up_to_the_last(
                q[..., start:end, :],
                k[..., :end, :],
                v[..., :end, :],
                scale=scale,
                softcap=softcap,
                window=window,
                documents=None if documents is None else documents[:, :end],
                sinks=sinks,
                chunk=None if chunk is None or chunk >= end - start else chunk,
            )
        )
    return jnp.concatenate(mixed, axis=3)


def _up_to_the_last(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    *,
    scale: jax.typing.ArrayLike,
    softcap: float | None,
    window: jax.typing.ArrayLike | None,
    documents: jax.Array | None,
    sinks: jax.Array | None,
    chunk: int | None,
) -> jax.Array:
    """Attention of the last queries of a sequence, [..., queries, d], to all of its keys."""
    keys_at = jnp.arange(k.shape[2])
    before = k.shape[2] - q.shape[3]

    def attend(
        q: jax.Array, k: jax.Array, v: jax.Array, queries_at: jax.Array, inside: jax.Array | None
    ) -> jax.Array:
        """Attention of some queries to all keys; `inside` are the queries' documents."""
        scores = jnp.einsum("bkgqd,bksd->bkgqs", q * jnp.asarray(scale, q.dtype), k)
        scores = scores.astype(jnp.promote_types(q.dtype, jnp.float32))
        if softcap is not None:
            scores = softcap * jnp.tanh(scores / softcap)
        distance = queries_at[:, None] - keys_at[None, :]
        seen = distance >= 0
        if window is not None:
            seen &= distance < window
        seen = seen[None]
        if documents is not None and inside is not None:
            seen = seen & (inside[:, :, None] == documents[:, None, :])
        scores = jnp.where(seen[:, None, None], scores, MASKED)
        # Normalised after the product with v: a division less for each score, and its derivatives.
        # The largest cancels out, and so do its derivatives.
        largest = jnp.max(scores, axis=-1, keepdims=True)
        sink = None
        if sinks is not None:
            sink = sinks.astype(scores.dtype)[None, :, :, None, None]
            largest = jnp.maximum(largest, sink)
        largest = jax.lax.stop_gradient(largest)
        weights = jnp.exp(scores - largest)
        mixed = jnp.einsum("bkgqs,bksd->bkgqd", weights.astype(q.dtype), v)
        total = jnp.sum(weights, axis=-1, keepdims=True)
        if sink is not None:
            total = total + jnp.exp(sink - largest)
        return mixed / total.astype(q.dtype)

    inside = None if documents is None else documents[:, before:]
    if chunk is None:
        return attend(q, k, v, keys_at[before:], inside)
    # Held in float32, because the gradients of keys and values sum over the chunks in their dtype.
    wide = jnp.promote_types(q.dtype, jnp.float32)
    wide_k, wide_v = k.astype(wide), v.astype(wide)

    def rows(q: jax.Array, queries_at: jax.Array, *inside: jax.Array) -> jax.Array:
        keys, values = wide_k.astype(k.dtype), wide_v.astype(v.dtype)
        of = inside[0].T if inside else None
        return jnp.moveaxis(attend(jnp.moveaxis(q, 0, 3), keys, values, queries_at, of), 3, 0)

    given = (jnp.moveaxis(q, 3, 0), keys_at[before:])
    if inside is not None:
        given += (inside.T,)
    return jnp.moveaxis(map_rows(rows, given, chunk), 0, 3)
