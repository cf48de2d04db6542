"""Products of rows with one of several matrices each: a mixture of experts' work, and no more.

Rows are brought into the order of their groups, so that those of a group are a stretch, whose
length is known when the program runs: no row is left out, and no array has both rows and groups.
How stretches are multiplied is the backend's way; all are differentiated alike.
"""

import math
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import jax
import jax.numpy as jnp

from metatune.models import stretch_products

COPY = 8
"""Rows whose product takes as long as bringing a matrix to a block does."""


class Order(NamedTuple):
    """Rows in the order of their groups.

    Attributes:
        place: where each row stands in that order, [rows].
        row: which row stands at each place, [rows].
        sizes: rows of each group, [groups].
    """

    place: jax.Array
    row: jax.Array
    sizes: jax.Array


def in_order(group_of: jax.Array, groups: int) -> Order:
    """Puts rows into the order of their groups; those of a group stay in their own.

    Args:
        group_of: each row's group, [rows].
        groups: how many there are.
    """
    rows = group_of.shape[0]
    number = jnp.arange(rows, dtype=group_of.dtype)
    if groups * rows <= jnp.iinfo(group_of.dtype).max:
        # One number a row is sorted in a quarter of the time of a pair.
        row = jnp.sort(group_of * rows + number) % rows
    else:
        row = jnp.argsort(group_of, stable=True).astype(group_of.dtype)
    place = jnp.zeros_like(number).at[row].set(number, unique_indices=True)
    return Order(place, row, counts(group_of, groups))


def counts(group_of: jax.Array, groups: int) -> jax.Array:
    """Rows of each group: [..., rows] to [..., groups], faster than by adding one for each row."""
    shape = (*group_of.shape, groups)
    number = jax.lax.broadcasted_iota(group_of.dtype, shape, group_of.ndim)
    return jnp.sum(group_of[..., None] == number, axis=-2, dtype=group_of.dtype)


def grouped(
    x: jax.Array, matrices: jax.Array, order: Order, *, transposed: bool = False
) -> jax.Array:
    """Each row times its group's matrix, `x Wᵀ`, or `x W` where transposed.

    Args:
        x: rows in the order of their groups, [rows, in].
        matrices: [groups, out, in]; [groups, in, out] where transposed.
        order: the groups' sizes.
        transposed: whether the matrices are.

    Returns:
        [rows, out].
    """
    return WAYS.get(jax.default_backend(), by_stretch)(x, matrices, order, transposed)


def by_stretch(
    x: jax.Array, matrices: jax.Array, order: Order, transposed: bool = False
) -> jax.Array:
    """As `grouped`, a piece of a stretch after the other: a CPU's way, with few copies."""
    return stretch_products.times_matrix(x, matrices, order.sizes, transposed=transposed)


def at_once(x: jax.Array, matrices: jax.Array, order: Order, transposed: bool = False) -> jax.Array:
    """As `grouped`, in blocks of one size, each with a copy of its matrix: a GPU's way."""
    rows, groups = x.shape[0], matrices.shape[0]
    size = block_size(rows, groups)
    count = (rows + groups * (size - 1)) // size  # of whatever groups, no more
    blocks = (order.sizes + size - 1) // size
    last, ends = jnp.cumsum(blocks), jnp.cumsum(order.sizes)
    numbers = jnp.arange(count, dtype=last.dtype)
    group = jnp.minimum(jnp.searchsorted(last, numbers, side="right"), groups - 1)
    first = (ends - order.sizes)[group] + size * (numbers - (last - blocks)[group])
    at = first[:, None] + jnp.arange(size, dtype=first.dtype)[None]
    filled = at < ends[group][:, None]
    own = jnp.where(filled[..., None], x[jnp.minimum(at, rows - 1)], 0)
    of = "bio" if transposed else "boi"
    product = jnp.einsum(f"bti,{of}->bto", own, matrices[group])
    place = jnp.arange(rows, dtype=last.dtype)
    of_row = jnp.minimum(jnp.searchsorted(ends, place, side="right"), groups - 1)
    place += (size * (last - blocks) - (ends - order.sizes))[of_row]
    return product.reshape(count * size, -1)[place]


def block_size(rows: int, groups: int) -> int:
    """Rows of a block: what is filled up costs as much as bringing matrices to blocks."""
    return max(1, min(rows, round(math.sqrt(COPY * rows / groups))))


def ragged(x: jax.Array, matrices: jax.Array, order: Order, transposed: bool = False) -> jax.Array:
    """As `grouped`, where the backend knows groups by their sizes."""
    inwards = matrices if transposed else matrices.swapaxes(1, 2)
    return jax.lax.ragged_dot(x, inwards, order.sizes)


WAYS: Final[Mapping[str, Callable[[jax.Array, jax.Array, Order, bool], jax.Array]]] = {
    "gpu": at_once,
    "tpu": ragged,  # alone in having no work of all groups for each row
}
"""By backend; else by stretch."""
