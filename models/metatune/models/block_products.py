"""Two products of blocks, each of a group, which are one another's derivatives.

`times_matrix` takes each block of rows times its group's matrix, `summed_outer` sums the outer
products of two rows over the blocks of each group. Both take one block after the other: copies of
matrices for all blocks, or of a group's derivative for each of its blocks, would cost more than the
products. Nothing that JAX derives from such a loop keeps to that (its transpose adds an array of
all groups for each block), so each is a primitive: linear in either argument, and what is linear in
one is the other, or itself: they are differentiated as often, and in whatever mode, as needed.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

_TIMES, _OUTER = Primitive("grouped_times_matrix"), Primitive("grouped_summed_outer")


def times_matrix(
    x: jax.Array, matrices: jax.Array, group: jax.Array, *, transposed: bool = False
) -> jax.Array:
    """Each block times its group's matrix, `x Wᵀ`, or `x W` where transposed.

    Args:
        x: [blocks, size, in].
        matrices: [groups, out, in]; [groups, in, out] where transposed.
        group: of each block, integers [blocks].
        transposed: whether the matrices are.

    Returns:
        [blocks, size, out].
    """
    return _TIMES.bind(x, matrices, group, transposed=transposed)


def summed_outer(a: jax.Array, b: jax.Array, group: jax.Array, *, groups: int) -> jax.Array:
    """The sum of `aᵀ b` over the blocks of each group, in at least float32 and cast back.

    Args:
        a: [blocks, size, m].
        b: [blocks, size, n].
        group: of each block, integers [blocks].
        groups: how many there are.

    Returns:
        [groups, m, n].
    """
    return _OUTER.bind(a, b, group, groups=groups)


def _times(x: jax.Array, matrices: jax.Array, group: jax.Array, *, transposed: bool) -> jax.Array:
    inside = 0 if transposed else 1

    def one(block: tuple[jax.Array, jax.Array]) -> jax.Array:
        rows, own = block
        matrix = jax.lax.dynamic_index_in_dim(matrices, own, 0, keepdims=False)
        return jax.lax.dot_general(rows, matrix, (((1,), (inside,)), ((), ())))

    return jax.lax.map(one, (x, group))


def _outer(a: jax.Array, b: jax.Array, group: jax.Array, *, groups: int) -> jax.Array:
    wide = jnp.promote_types(a.dtype, jnp.float32)

    def add(found: jax.Array, block: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
        a, b, own = block
        product = jax.lax.dot_general(a, b, (((0,), (0,)), ((), ())), preferred_element_type=wide)
        before = jax.lax.dynamic_index_in_dim(found, own, 0, keepdims=False)
        return jax.lax.dynamic_update_index_in_dim(found, before + product, own, 0), None

    zeros = jnp.zeros((groups, a.shape[-1], b.shape[-1]), wide)
    return jax.lax.scan(add, zeros, (a, b, group))[0].astype(a.dtype)


def _times_shape(x: Any, matrices: Any, group: Any, *, transposed: bool) -> Any:
    out = matrices.shape[2 if transposed else 1]
    return x.update(shape=(*x.shape[:2], out), weak_type=False)


def _outer_shape(a: Any, b: Any, group: Any, *, groups: int) -> Any:
    return a.update(shape=(groups, a.shape[-1], b.shape[-1]), weak_type=False)


def _tangent(
    primitive: Primitive, primals: Sequence[Any], tangents: Sequence[Any], **settings: Any
) -> tuple[jax.Array, Any]:
    """The product, and its tangent: that of each argument with the other held."""
    a, b, group = primals
    out = primitive.bind(a, b, group, **settings)
    parts = [
        primitive.bind(*pair, group, **settings)
        for pair, moved in (((tangents[0], b), tangents[0]), ((a, tangents[1]), tangents[1]))
        if type(moved) is not ad.Zero
    ]
    if not parts:
        return out, ad.Zero(jax.typeof(out).to_tangent_aval())
    return out, parts[0] if len(parts) == 1 else parts[0] + parts[1]


def _times_transpose(
    cotangent: Any, x: Any, matrices: Any, group: Any, *, transposed: bool
) -> list[Any]:
    """Of `x Wᵀ`: by x the product with W, by W the sum of outer products."""
    if ad.is_undefined_primal(x):
        if type(cotangent) is ad.Zero:
            return [ad.Zero(x.aval), None, None]
        return [times_matrix(cotangent, matrices, group, transposed=not transposed), None, None]
    if type(cotangent) is ad.Zero:
        return [None, ad.Zero(matrices.aval), None]
    pair = (x, cotangent) if transposed else (cotangent, x)
    return [None, summed_outer(*pair, group, groups=matrices.aval.shape[0]), None]


def _outer_transpose(cotangent: Any, a: Any, b: Any, group: Any, *, groups: int) -> list[Any]:
    """Of `aᵀ b`: by a the product of b with M ᵀ, by b that of a with M."""
    if ad.is_undefined_primal(a):
        if type(cotangent) is ad.Zero:
            return [ad.Zero(a.aval), None, None]
        return [times_matrix(b, cotangent, group), None, None]
    if type(cotangent) is ad.Zero:
        return [None, ad.Zero(b.aval), None]
    return [None, times_matrix(a, cotangent, group, transposed=True), None]


def _batched(
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
    batching.primitive_batchers[_primitive] = partial(_batched, _primitive)
