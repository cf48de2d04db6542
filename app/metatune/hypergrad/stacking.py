"""Several trainings as one: a `Problem` of M, whose arrays have an axis more."""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.tree_util import Partial
from jaxtyping import Array, Int32, PyTree, Shaped

from metatune.hypergrad.problem import Problem, State, as_argument
from metatune.hypergrad.shapes import (
    Batch,
    Eta,
    Hyper,
    Leaf,
    OptState,
    Params,
    Parts,
    Scalar,
    Step,
    Tree,
)
from metatune.hypergrad.sharding import TOGETHER, MemberAxis, member_axis, stacked_place


def stacked(problem: Problem, starts: Int32[Array, "M"], axis: MemberAxis = TOGETHER) -> Problem:
    """M trainings side by side as a problem.

    η, parameters and optimizer states are stacked on axis 0, batches on axis 1 (axis 0 is that of
    the examples, which micro-batches split), those of the objective are shared.

    Args:
        problem: of each.
        starts: the inner step that step 0 of the whole is for each.
        axis: that they are cut over, where each lies on several devices.
    """
    problem = as_argument(problem)
    return Problem(
        Partial(_loss, axis, problem.loss),
        Partial(_update, axis, problem.update),
        Partial(_objective if problem.whole is None else _parts, axis, problem.objective),
        Partial(_hyper_at, problem.hyper_at, starts),
        None if problem.evaluated is None else Partial(_evaluated, axis, problem.evaluated),
        problem.micro_batches,
        None if problem.start is None else Partial(_start, axis, problem.start, starts),
        None if problem.whole is None else Partial(_whole, problem.whole),
        len(starts),
    )


def stack(trees: Sequence[PyTree], batches: bool = False) -> PyTree:
    """Pytrees of the members as one, on axis 0; those of `batches` on axis 1."""

    def join(*leaves: Shaped[Leaf, "..."]) -> Shaped[Leaf, "..."]:
        module = np if isinstance(leaves[0], np.ndarray) else jnp
        return module.stack(leaves, axis=min(1, np.ndim(leaves[0])) if batches else 0)

    return jax.tree.map(join, *trees)


def side_by_side(count: int, make: Callable[[int], Tree]) -> tuple[Tree, MemberAxis]:
    """Pytrees of so many members as one, on axis 0, that are made one after the other.

    Where they lie on several devices, over the axis of their mesh for them, so that no device ever
    has more than its own and one.

    Args:
        count: of the members.
        make: a member's, by its number.

    Returns:
        The pytree, and the axis.

    Raises:
        ValueError: the axis doesn't divide them.
    """
    first = make(0)
    axis = member_axis(first)
    if count % axis.parts:
        raise ValueError(
            f"a population of {count}: the mesh cuts it into members = {axis.parts} parts, which "
            "don't divide it"
        )
    if axis.parts == 1:
        return stack([first, *(make(number) for number in range(1, count))]), axis
    leaves, treedef = jax.tree.flatten(first)
    del first
    places = [stacked_place(leaf.sharding, axis) for leaf in leaves]
    whole = [
        jnp.zeros((count, *leaf.shape), leaf.dtype, device=place)
        for leaf, place in zip(leaves, places, strict=True)
    ]
    for number in range(count):
        if number:
            leaves = jax.tree.leaves(make(number))
        whole = _with_member(tuple(places), whole, leaves, np.int32(number))
    return jax.tree.unflatten(treedef, whole), axis


def member(tree: Tree, number: int) -> Tree:
    """One member's part of a stacked pytree."""
    return jax.tree.map(lambda leaf: leaf[number], tree)


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def _with_member(
    places: tuple[NamedSharding | None, ...],
    whole: list[Shaped[Array, "M ..."]],
    one: list[Shaped[Array, "..."]],
    number: Int32[Array, ""],
) -> list[Shaped[Array, "M ..."]]:
    """The leaves of all members with those of one in their place."""

    def put(
        place: NamedSharding | None, all_: Shaped[Array, "M *shape"], own: Shaped[Array, "*shape"]
    ) -> Shaped[Array, "M *shape"]:
        # Chosen and not written to: nothing moves between devices.
        at = jnp.arange(len(all_)).reshape(-1, *(1,) * own.ndim) == number
        found = jnp.where(at, own[None], all_)
        return found if place is None else jax.lax.with_sharding_constraint(found, place)

    return [put(*each) for each in zip(places, whole, one, strict=True)]


def _loss(axis: MemberAxis, loss: Partial, params: Params, hyper: Hyper, batch: Batch) -> Scalar:
    axes = jax.tree.map(lambda leaf: min(1, leaf.ndim - 1), batch)
    each = jax.vmap(loss, in_axes=(0, 0, axes), spmd_axis_name=axis.name)
    return jnp.sum(each(params, hyper, batch))


def _update(
    axis: MemberAxis,
    update: Partial,
    grads: Params,
    opt_state: OptState,
    params: Params,
    hyper: Hyper,
) -> tuple[Params, OptState]:
    return jax.vmap(update, spmd_axis_name=axis.name)(grads, opt_state, params, hyper)


def _objective(axis: MemberAxis, objective: Partial, params: Params, batch: Batch) -> Scalar:
    return jnp.sum(_parts(axis, objective, params, batch))


def _parts(axis: MemberAxis, objective: Partial, params: Params, batch: Batch) -> Parts:
    return jax.vmap(objective, in_axes=(0, None), spmd_axis_name=axis.name)(params, batch)


def _whole(whole: Partial, means: Parts) -> Scalar:
    return jnp.sum(jax.vmap(whole)(means))


def _hyper_at(hyper_at: Partial, starts: Int32[Array, "M"], eta: Eta, step: Step) -> Hyper:
    return jax.vmap(lambda eta, start: hyper_at(eta, start + step))(eta, starts)


def _evaluated(axis: MemberAxis, evaluated: Partial, params: Params, opt_state: OptState) -> Params:
    return jax.vmap(evaluated, spmd_axis_name=axis.name)(params, opt_state)


def _start(
    axis: MemberAxis, start: Partial, starts: Int32[Array, "M"], eta: Eta, state: State
) -> State:
    """Members that begin a training are moved, those that are under way are not."""

    def chosen(
        begun: Shaped[Array, "M *shape"], given: Shaped[Array, "M *shape"]
    ) -> Shaped[Array, "M *shape"]:
        begins = (starts == 0).reshape(-1, *(1,) * (given.ndim - 1))
        return jnp.where(begins, begun, given)

    return jax.tree.map(
        chosen, State(*jax.vmap(start, spmd_axis_name=axis.name)(eta, state)), state
    )
