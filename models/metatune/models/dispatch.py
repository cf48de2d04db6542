"""Tokens into the order of their experts and back: two linear maps, one another's transposes.

Both take rows from where they are. What JAX derives from taking rows adds each to where it came
from, one after the other: three times as long on a CPU as to say that the transpose of `spread` is
`collect`, and the other way round. So each is a primitive, differentiated as often, and in whatever
mode, as needed.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from metatune.models.grouped import Order
from metatune.models.stretch_products import batched

_SPREAD, _COLLECT = Primitive("dispatch_spread"), Primitive("dispatch_collect")


def spread(x: jax.Array, order: Order) -> jax.Array:
    """The token of each row: those that a token has `few` rows of, one after the other, so often.

    Args:
        x: of the tokens, [tokens, features].
        order: of their rows, `few` for each token.

    Returns:
        In that order, [rows, features].
    """
    return _SPREAD.bind(x, *_both_ways(x.shape[0], order))


def collect(y: jax.Array, order: Order, tokens: int) -> jax.Array:
    """The sum of each token's rows.

    Args:
        y: of the rows, in their order, [rows, features].
        order: of the rows, as many for each token.
        tokens: how many there are.

    Returns:
        [tokens, features].
    """
    return _COLLECT.bind(y, *_both_ways(tokens, order))


def _both_ways(tokens: int, order: Order) -> tuple[jax.Array, jax.Array]:
    """The token of each row, [rows], and the rows of each token, [tokens, few]."""
    place = order.place.reshape(tokens, -1)
    return order.row // place.shape[1], place


def _spread(x: jax.Array, token: jax.Array, place: jax.Array) -> jax.Array:
    del place
    return x.at[token].get(mode="promise_in_bounds")


def _collect(y: jax.Array, token: jax.Array, place: jax.Array) -> jax.Array:
    del token
    few = place.shape[1]
    # Sums of whole arrays, which are taken and added in one pass.
    parts = [y.at[place[:, nth]].get(mode="promise_in_bounds") for nth in range(few)]
    return sum(parts[1:], parts[0])


def _spread_shape(x: Any, token: Any, place: Any) -> Any:
    return x.update(shape=(token.shape[0], *x.shape[1:]), weak_type=False)


def _collect_shape(y: Any, token: Any, place: Any) -> Any:
    return y.update(shape=(place.shape[0], *y.shape[1:]), weak_type=False)


def _tangent(primitive: Primitive, primals: Sequence[Any], tangents: Sequence[Any]) -> Any:
    """Linear: of a tangent the same."""
    _, *where = primals
    out, moved = primitive.bind(*primals), tangents[0]
    if type(moved) is ad.Zero:
        return out, ad.Zero(jax.typeof(out).to_tangent_aval())
    return out, primitive.bind(moved, *where)


def _transpose(back: Primitive, cotangent: Any, x: Any, token: Any, place: Any) -> list[Any]:
    if type(cotangent) is ad.Zero:
        return [ad.Zero(x.aval), None, None]
    return [back.bind(cotangent, token, place), None, None]


_Compute = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
_ROWS: tuple[tuple[Primitive, Primitive, _Compute, Callable[[Any, Any, Any], Any]], ...] = (
    (_SPREAD, _COLLECT, _spread, _spread_shape),
    (_COLLECT, _SPREAD, _collect, _collect_shape),
)
for _primitive, _back, _compute, _shape in _ROWS:
    _primitive.def_impl(_compute)
    _primitive.def_abstract_eval(_shape)
    mlir.register_lowering(_primitive, mlir.lower_fun(_compute, multiple_results=False))
    ad.primitive_jvps[_primitive] = partial(_tangent, _primitive)
    ad.primitive_transposes[_primitive] = partial(_transpose, _back)
    batching.primitive_batchers[_primitive] = partial(batched, _primitive)
