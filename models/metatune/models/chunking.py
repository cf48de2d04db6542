"""Large intermediate arrays a chunk of rows at a time: less memory, the same result.

The rows of an array that a function computes and reduces again (scores, logits) are independent of
one another. Computed one chunk after the other, and again in the backward pass, only one chunk of
it ever exists.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from metatune.recipe.schema import Chunk

LARGEST = 64 * 2**20
"""Bytes of float32 above which `auto` chunks an array: below, nothing is computed twice."""


def rows_at_a_time(chunk: Chunk, *, rows: int, columns: int) -> int | None:
    """How many rows of an array are to exist at a time; None for all of them.

    `auto` leaves arrays of up to `LARGEST` bytes alone and cuts others into the fewest chunks of up
    to that size, as even as can be.

    Args:
        chunk: what was asked for.
        rows: of the whole array.
        columns: float32 numbers per row.
    """
    if chunk == "auto":
        fitting = max(1, LARGEST // (columns * jnp.dtype(jnp.float32).itemsize))
        chunk = -(-rows // -(-rows // fitting))
    return None if chunk is None or chunk >= rows else chunk


def map_rows(
    function: Callable[..., jax.Array],
    arrays: Any,
    chunk: int,
    parts: int = 1,
    *,
    shared: Any = (),
) -> jax.Array:
    """`function` of `chunk` rows at a time; it is computed again where it is differentiated.

    Differentiable as often as `function`, in forward and reverse mode. In reverse over reverse, the
    outer pass keeps what the inner one computed of all chunks; in forward over reverse, it doesn't.

    Args:
        function: `(*arrays, *shared) -> [rows, ...]`, a row of its result for each row of the
            arrays, on its own; finite on rows of zeros, which fill up the last chunk.
        arrays: [rows, ...] each.
        chunk: rows at a time.
        parts: of the rows, each on devices of its own: `chunk` of each part at a time. Chunks of
            all rows would each be on one of them.
        shared: trees of arrays, the same for all rows. Of several parts each has one of its own:
            its derivative sums over the chunks on the devices of the part, and over the parts, and
            so between devices, once after all chunks.
    """
    if parts > 1:
        apart = [array.reshape(parts, -1, *array.shape[1:]) for array in arrays]
        copies = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (parts, *leaf.shape)), shared)
        out = jax.vmap(lambda part, shared: map_rows(function, part, chunk, shared=shared))(
            apart, copies
        )
        return out.reshape(-1, *out.shape[2:])
    rows = arrays[0].shape[0]
    chunks = -(-rows // chunk)

    def split(array: jax.Array) -> jax.Array:
        widths = [(0, chunks * chunk - rows)] + [(0, 0)] * (array.ndim - 1)
        return jnp.pad(array, widths).reshape(chunks, chunk, *array.shape[1:])

    def body(*given: jax.Array) -> jax.Array:
        # What follows from one argument alone, such as a mask from positions, would otherwise be
        # computed ahead for all chunks at once where that argument doesn't depend on parameters.
        return function(*jax.lax.optimization_barrier(given), *shared)

    # Without barriers against merging what is computed twice: a scan's passes can't be merged.
    again = jax.checkpoint(body, prevent_cse=False)
    _, out = jax.lax.scan(
        lambda _, given: (None, again(*given)), None, tuple(split(array) for array in arrays)
    )
    return out.reshape(chunks * chunk, *out.shape[2:])[:rows]
