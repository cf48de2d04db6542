"""Products of rows with one of several matrices each: a mixture of experts' work, and no more.

Rows are brought into the order of their groups, which are cut into blocks of one size, the last of
each filled up with zeros, so that no row is left out and no array has both rows and groups. How
blocks are multiplied is the backend's way; all are differentiated alike.
"""

import math
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import jax
import jax.numpy as jnp

from metatune.models import block_products

COPY = 8
"""Rows whose product takes as long as bringing a matrix to a block does, on a CPU."""


class Order(NamedTuple):
    """Rows in blocks, each of one group.

    Attributes:
        place: where in the blocks each row stands, counted through all of them, [rows].
        row: which row stands at each place, [blocks, size]; any at a place that is empty.
        filled: whether a row stands there, [blocks, size].
        group: of each block, [blocks].
    """

    place: jax.Array
    row: jax.Array
    filled: jax.Array
    group: jax.Array


def block_size(rows: int, groups: int) -> int:
    """Rows of a block: what is filled up costs as much as bringing matrices to blocks."""
    return max(1, min(rows, round(math.sqrt(COPY * rows / groups))))


def in_blocks(group_of: jax.Array, groups: int) -> Order:
    """Puts rows into blocks by their groups, in the order that they have.

    Args:
        group_of: each row's group, [rows].
        groups: how many there are.
    """
    rows = group_of.shape[0]
    size = block_size(rows, groups)
    blocks = (rows + groups * (size - 1)) // size  # of whatever groups, no more
    sizes = jnp.bincount(group_of, length=groups)
    ends = jnp.cumsum((sizes + size - 1) // size)  # of each group, in blocks
    starts = ends - (sizes + size - 1) // size
    order = jnp.argsort(group_of, stable=True)
    within = jnp.arange(rows) - (jnp.cumsum(sizes) - sizes)[group_of[order]]
    place = jnp.zeros(rows, within.dtype).at[order].set(starts[group_of[order]] * size + within)
    count = blocks * size
    row = jnp.zeros(count, place.dtype).at[place].set(jnp.arange(rows, dtype=place.dtype))
    filled = jnp.zeros(count, bool).at[place].set(True)
    group = jnp.searchsorted(ends, jnp.arange(blocks), side="right")
    shape = (blocks, size)
    return Order(place, row.reshape(shape), filled.reshape(shape), jnp.minimum(group, groups - 1))


def grouped(
    x: jax.Array, matrices: jax.Array, order: Order, *, transposed: bool = False
) -> jax.Array:
    """Each block of rows times its group's matrix, `x Wᵀ`, or `x W` where transposed.

    Args:
        x: [blocks, size, in].
        matrices: [groups, out, in]; [groups, in, out] where transposed.
        order: the blocks.
        transposed: whether the matrices are.

    Returns:
        [blocks, size, out].
    """
    return WAYS.get(jax.default_backend(), one_by_one)(x, matrices, order, transposed)


def one_by_one(
    x: jax.Array, matrices: jax.Array, order: Order, transposed: bool = False
) -> jax.Array:
    """As `grouped`, a block after the other: a CPU's way, which copies no matrix for later."""
    return block_products.times_matrix(x, matrices, order.group, transposed=transposed)


def at_once(x: jax.Array, matrices: jax.Array, order: Order, transposed: bool = False) -> jax.Array:
    """As `grouped`, all blocks at once, each with a copy of its matrix: a GPU's way."""
    of = "bio" if transposed else "boi"
    return jnp.einsum(f"bti,{of}->bto", x, matrices[order.group])


def ragged(x: jax.Array, matrices: jax.Array, order: Order, transposed: bool = False) -> jax.Array:
    """As `grouped`, where the backend knows groups of whole blocks by their sizes."""
    blocks, size, inside = x.shape
    sizes = size * jnp.bincount(order.group, length=matrices.shape[0])
    flat = x.reshape(blocks * size, inside)
    inwards = matrices if transposed else matrices.swapaxes(1, 2)
    return jax.lax.ragged_dot(flat, inwards, sizes).reshape(blocks, size, -1)


WAYS: Final[Mapping[str, Callable[[jax.Array, jax.Array, Order, bool], jax.Array]]] = {
    "gpu": at_once,
    "tpu": ragged,  # alone in having no work of all groups for each row
}
"""By backend; else one by one."""
