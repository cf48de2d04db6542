"""Two products of rows in stretches, each of a group, which are one another's derivatives.

`times_matrix` takes each row times its group's matrix, `summed_outer` sums the outer products of
two rows over those of each group. A stretch is cut into pieces when the program runs: as many of a
group's even share of all rows as it has, and what is left over in short ones, so that a group
without rows takes no time, and the work is never twice that of the rows and of a short piece for
each group. Pieces are taken one after the other, in place: copies of matrices for all, or of a
group's derivative for each of its pieces, would cost more than the products.

Nothing that JAX derives from such a loop keeps to that (a loop of unknown length has no transpose
at all), so each is a primitive: linear in either argument, and what is linear in one is the other,
or itself: they are differentiated as often, and in whatever mode, as needed.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

_TIMES, _OUTER = Primitive("grouped_times_matrix"), Primitive("grouped_summed_outer")
COPY = 8
"""Rows whose product takes as long as beginning another piece does, on a CPU."""


def times_matrix(
    x: jax.Array, matrices: jax.Array, sizes: jax.Array, *, transposed: bool = False
) -> jax.Array:
    """Each row times its group's matrix, `x Wᵀ`, or `x W` where transposed.

    Args:
        x: rows in the order of their groups, [rows, in].
        matrices: [groups, out, in]; [groups, in, out] where transposed.
        sizes: rows of each group, integers [groups], of sum rows.
        transposed: whether the matrices are.

    Returns:
        [rows, out].
    """
    return _TIMES.bind(x, matrices, sizes, transposed=transposed)


def summed_outer(a: jax.Array, b: jax.Array, sizes: jax.Array) -> jax.Array:
    """The sum of `aᵀ b` over the rows of each group, in at least float32 and cast back.

    Args:
        a: rows in the order of their groups, [rows, m].
        b: likewise, [rows, n].
        sizes: rows of each group, integers [groups], of sum rows.

    Returns:
        [groups, m, n].
    """
    return _OUTER.bind(a, b, sizes)


class StretchPieces(NamedTuple):
    """Stretches cut into pieces of one length.

    Attributes:
        length: rows of a piece.
        number: how many pieces there are; what is said of later ones means nothing.
        group: of each, [most].
        start: the row at which each begins, [most].
    """

    length: int
    number: jax.Array
    group: jax.Array
    start: jax.Array


def cut(sizes: jax.Array, rows: int) -> tuple[StretchPieces, StretchPieces]:
    """Cuts the stretches: into long pieces, and the rest of each into short ones if that is less.

    Args:
        sizes: rows of each group, [groups].
        rows: their sum.
    """
    groups = sizes.shape[0]
    long = -(-rows // groups)
    short = max(1, min(long, round(math.sqrt(COPY * long))))
    begin = jnp.cumsum(sizes) - sizes
    whole, rest = sizes // long, sizes % long
    few = max(1, -(-(long // 2) // short))  # short pieces that the rest may be cut into
    whole += (rest > few * short).astype(sizes.dtype)
    more = -(-jnp.maximum(sizes - whole * long, 0) // short)
    return (
        _pieces(long, whole, begin, rows // long + groups),
        _pieces(short, more, begin + whole * long, few * groups),
    )


def _pieces(length: int, of_each: jax.Array, begin: jax.Array, most: int) -> StretchPieces:
    """Pieces of a length, so many of each group from its row `begin` on."""
    ends = jnp.cumsum(of_each)
    number = jnp.arange(most, dtype=ends.dtype)
    group = jnp.sum(number[:, None] >= ends[None, :-1], axis=1, dtype=ends.dtype)
    within = number - (ends - of_each)[group]
    return StretchPieces(length, ends[-1], group, begin[group] + length * within)


def _over_pieces(
    add: Callable[[jax.Array, Callable[[jax.Array], jax.Array], Any, Any, jax.Array], jax.Array],
    found: jax.Array,
    sizes: jax.Array,
    rows: int,
) -> jax.Array:
    """Adds what each piece is to what was found, one after the other.

    Args:
        add: of what was found, a function that takes the piece's rows of an array, the first of
            them, the piece's group, and which of the rows are the piece's own, [length, 1]: near
            the end of all a piece begins earlier, and its last rows may be another group's.
        found: to begin with.
        sizes: rows of each group.
        rows: their sum.
    """
    ends = jnp.cumsum(sizes)
    for pieces in cut(sizes, rows):

        def one(at: jax.Array, found: jax.Array, pieces: StretchPieces = pieces) -> jax.Array:
            group, start = pieces.group[at], pieces.start[at]
            first = jnp.minimum(start, rows - pieces.length)
            row = first + jnp.arange(pieces.length, dtype=first.dtype)
            own = (row >= start) & (row < ends[group])

            def taken(of: jax.Array) -> jax.Array:
                return jax.lax.dynamic_slice_in_dim(of, first, pieces.length)

            return add(found, taken, first, group, own[:, None])

        found = jax.lax.fori_loop(0, pieces.number, one, found)
    return found


def _times(x: jax.Array, matrices: jax.Array, sizes: jax.Array, *, transposed: bool) -> jax.Array:
    inside = 0 if transposed else 1
    rows, out = x.shape[0], matrices.shape[2 if transposed else 1]

    def add(found: jax.Array, taken: Any, first: Any, group: Any, own: jax.Array) -> jax.Array:
        matrix = jax.lax.dynamic_index_in_dim(matrices, group, 0, keepdims=False)
        product = jax.lax.dot_general(taken(x), matrix, (((1,), (inside,)), ((), ())))
        product = jnp.where(own, product, taken(found))
        return jax.lax.dynamic_update_slice_in_dim(found, product, first, 0)

    # Every row is found. To begin with any numbers will do; zeros XLA would share and copy.
    return _over_pieces(add, jnp.broadcast_to(x[0, 0], (rows, out)), sizes, rows)


def _outer(a: jax.Array, b: jax.Array, sizes: jax.Array) -> jax.Array:
    wide = jnp.promote_types(a.dtype, jnp.float32)

    def add(found: jax.Array, taken: Any, first: Any, group: Any, own: jax.Array) -> jax.Array:
        del first
        product = jax.lax.dot_general(
            jnp.where(own, taken(a), 0),
            taken(b),
            (((0,), (0,)), ((), ())),
            preferred_element_type=wide,
        )
        before = jax.lax.dynamic_index_in_dim(found, group, 0, keepdims=False)
        return jax.lax.dynamic_update_index_in_dim(found, before + product, group, 0)

    # Zeros that XLA doesn't know to be the same as others', which it would share and copy.
    zero = jnp.minimum(sizes[0], 0).astype(wide)
    zeros = jnp.broadcast_to(zero, (sizes.shape[0], a.shape[-1], b.shape[-1]))
    return _over_pieces(add, zeros, sizes, a.shape[0]).astype(a.dtype)


def _times_shape(x: Any, matrices: Any, sizes: Any, *, transposed: bool) -> Any:
    out = matrices.shape[2 if transposed else 1]
    return x.update(shape=(x.shape[0], out), weak_type=False)


def _outer_shape(a: Any, b: Any, sizes: Any) -> Any:
    return a.update(shape=(sizes.shape[0], a.shape[-1], b.shape[-1]), weak_type=False)


def _tangent(
    primitive: Primitive, primals: Sequence[Any], tangents: Sequence[Any], **settings: Any
) -> tuple[jax.Array, Any]:
    """The product, and its tangent: that of each argument with the other held."""
    a, b, sizes = primals
    out = primitive.bind(a, b, sizes, **settings)
    parts = [
        primitive.bind(*pair, sizes, **settings)
        for pair, moved in (((tangents[0], b), tangents[0]), ((a, tangents[1]), tangents[1]))
        if type(moved) is not ad.Zero
    ]
    if not parts:
        return out, ad.Zero(jax.typeof(out).to_tangent_aval())
    return out, parts[0] if len(parts) == 1 else parts[0] + parts[1]


def _times_transpose(
    cotangent: Any, x: Any, matrices: Any, sizes: Any, *, transposed: bool
) -> list[Any]:
    """Of `x Wᵀ`: by x the product with W, by W the sum of outer products."""
    if ad.is_undefined_primal(x):
        if type(cotangent) is ad.Zero:
            return [ad.Zero(x.aval), None, None]
        return [times_matrix(cotangent, matrices, sizes, transposed=not transposed), None, None]
    if type(cotangent) is ad.Zero:
        return [None, ad.Zero(matrices.aval), None]
    pair = (x, cotangent) if transposed else (cotangent, x)
    return [None, summed_outer(*pair, sizes), None]


def _outer_transpose(cotangent: Any, a: Any, b: Any, sizes: Any) -> list[Any]:
    """Of `aᵀ b`: by a the product of b with M ᵀ, by b that of a with M."""
    if ad.is_undefined_primal(a):
        if type(cotangent) is ad.Zero:
            return [ad.Zero(a.aval), None, None]
        return [times_matrix(b, cotangent, sizes), None, None]
    if type(cotangent) is ad.Zero:
        return [None, ad.Zero(b.aval), None]
    return [None, times_matrix(a, cotangent, sizes, transposed=True), None]


def batched(
    primitive: Primitive, arguments: Sequence[Any], axes: Sequence[Any], **settings: Any
) -> tuple[jax.Array, int]:
    """One member of the batch after the other; what all share is shared."""
    moved = [
        a if axis is None else jnp.moveaxis(a, axis, 0)
        for a, axis in zip(arguments, axes, strict=True)
    ]
    mapped = [axis is not None for axis in axes]

    def one(own: list[Any]) -> jax.Array:
        rest = iter(own)
        each = [next(rest) if is_mapped else a for a, is_mapped in zip(moved, mapped, strict=True)]
        return primitive.bind(*each, **settings)

    return jax.lax.map(one, [a for a, own in zip(moved, mapped, strict=True) if own]), 0


for _primitive, _compute, _shape, _transpose in (
    (_TIMES, _times, _times_shape, _times_transpose),
    (_OUTER, _outer, _outer_shape, _outer_transpose),
):
    _primitive.def_impl(_compute)
    _primitive.def_abstract_eval(_shape)
    mlir.register_lowering(_primitive, mlir.lower_fun(_compute, multiple_results=False))
    ad.primitive_jvps[_primitive] = partial(_tangent, _primitive)
    ad.primitive_transposes[_primitive] = _transpose
    batching.primitive_batchers[_primitive] = partial(batched, _primitive)
