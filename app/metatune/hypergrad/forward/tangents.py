"""Forward mode: tangents of the state along directions of η, pushed through inner steps.

With Z_t = d(θ_t, υ_t)/dη · v along a direction v, an inner step gives `Z_{t+1}` as its derivative
along (Z_t, v): the tangent of `g = ∇_θ L(θ, λ, x)` first, forward over reverse, then that of the
update Υ. No recursion is derived by hand, whatever the optimizer.

Source: Micaelli & Storkey, Gradient-based Hyperparameter Optimization Over Long Horizons, 2021,
section 3 (there for SGD with momentum).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int32, PyTree

from metatune.hypergrad.problem import Problem, State, inner_gradient, inner_update
from metatune.hypergrad.segments import Segment, inexact, scan_segment
from metatune.hypergrad.shapes import Batch, Eta, Floats, Params, Scalar, Step


class Tangents(NamedTuple):
    """Tangents of a state along n directions.

    Attributes:
        params: of the parameters.
        opt_state: of the floating-point leaves of the optimizer state.
    """

    params: PyTree[Float[Array, "n ..."]]
    opt_state: list[Float[Array, "n ..."]]


def push_segment(
    problem: Problem,
    eta: Eta,
    directions: Eta,
    state: State,
    tangents: Tangents,
    segment: Segment,
    clip: float | None,
    axis: str | None = None,
) -> tuple[State, Tangents, Float[Array, "length"]]:
    """Trains through a segment, with tangents.

    Args:
        problem: the training.
        eta: meta-parameters η.
        directions: a pytree like η, [n, ...] each.
        state: the state before the segment.
        tangents: of that state.
        segment: the steps and their batches.
        clip: largest global norm of the tangent of an inner gradient; None for no clipping.
        axis: of the mesh that the state lies on, over which directions are cut; None for none.

    Returns:
        State and tangents after the segment, and the inner losses.
    """

    def body(carry: tuple[State, Tangents], given: PyTree) -> tuple[tuple[State, Tangents], Scalar]:
        (state, tangents), (step, batch, _) = carry, given

        def along(direction: Eta, tangent: Tangents) -> tuple[State, Scalar, Tangents]:
            return push_step(problem, eta, direction, state, tangent, batch, step, clip)

        # The step itself doesn't depend on the direction: it is computed once for all of them.
        push = jax.vmap(along, out_axes=(None, None, 0), spmd_axis_name=axis)
        state, loss, tangents = push(directions, tangents)
        return (state, tangents), loss

    (state, tangents), losses = scan_segment(body, (state, tangents), segment)
    return state, tangents, losses


def push_step(
    problem: Problem,
    eta: Eta,
    direction: Eta,
    state: State,
    tangent: Tangents,
    batch: Batch,
    step: Step,
    clip: float | None,
) -> tuple[State, Scalar, Tangents]:
    """One inner step and its tangent along one direction: the next state, the loss, the tangent."""

    def gradient(eta: Eta, params: Params) -> tuple[Params, Scalar]:
        before = State(params, state.opt_state)
        loss, grads = inner_gradient(problem, eta, before, batch, step)
        return grads, loss

    floats, rebuild = inexact(state.opt_state)

    def update(eta: Eta, grads: Params, params: Params, floats: Floats) -> tuple[Tangents, State]:
        after = inner_update(problem, eta, State(params, rebuild(floats)), grads, step)
        return Tangents(after.params, inexact(after.opt_state)[0]), after

    grads, grads_dot, loss = jax.jvp(
        gradient, (eta, state.params), (direction, tangent.params), has_aux=True
    )
    if clip is not None:
        grads_dot = _clipped(grads_dot, clip)
    _, pushed, after = jax.jvp(
        update,
        (eta, grads, state.params, floats),
        (direction, grads_dot, tangent.params, tangent.opt_state),
        has_aux=True,
    )
    return after, loss, pushed


def contract(params_bar: Params, opt_bar: Floats | None, tangents: Tangents) -> Float[Array, "n"]:
    """The derivatives of the objective along the directions, `∇F · Z_T`.

    Args:
        params_bar: the gradient of the objective in the parameters.
        opt_bar: in the floating-point leaves of the optimizer state; None where it is zero.
        tangents: Z_T.
    """
    bar, dots = (params_bar, opt_bar), (tangents.params, tangents.opt_state)
    if opt_bar is None:
        bar, dots = params_bar, tangents.params
    # Not as matrices: what is cut along an axis would be put together for one.
    products = jax.tree.map(lambda b, d: jnp.tensordot(d, b, axes=_all_but_first(d)), bar, dots)
    return sum(jax.tree.leaves(products), jnp.zeros(()))


def _all_but_first(leaf: Float[Array, "n ..."]) -> tuple[list[int], list[int]]:
    """The axes of one direction, in an array of all and in one like it."""
    return [*range(1, leaf.ndim)], [*range(leaf.ndim - 1)]


def onsets(problem: Problem, eta: Eta, first: Step, stop: Step) -> Int32[Array, "N"]:
    """The inner step that each coordinate of η first acts in; `stop` for none.

    A coordinate acts in step t if it moves λ_t: before, its tangents are zero.

    Args:
        problem: the training.
        eta: meta-parameters η, N coordinates in all.
        first: the first inner step.
        stop: one past the last inner step.
    """
    flat, unflatten = ravel_pytree(eta)

    def acts(step: Step) -> Bool[Array, "N"]:
        def moves(direction: Float[Array, "N"]) -> Bool[Array, ""]:
            hyper_at = (lambda eta: inexact(problem.hyper_at(eta, step))[0], (eta,))
            _, moved = jax.jvp(*hyper_at, (unflatten(direction),))
            return jnp.any(jnp.stack([jnp.any(leaf != 0) for leaf in moved]))

        return jax.vmap(moves)(jnp.eye(len(flat), dtype=flat.dtype))

    def body(
        carry: tuple[Int32[Array, ""], Int32[Array, "N"]],
    ) -> tuple[Int32[Array, ""], Int32[Array, "N"]]:
        step, found = carry
        return step + 1, jnp.where(acts(step) & (found == stop), step, found)

    def goes_on(carry: tuple[Int32[Array, ""], Int32[Array, "N"]]) -> Bool[Array, ""]:
        step, found = carry
        return (step < stop) & jnp.any(found == stop)

    return jax.lax.while_loop(goes_on, body, (first, jnp.full(len(flat), stop)))[1]


def _clipped(grads_dot: Params, clip: float) -> Params:
    """The tangent of a gradient, scaled down to a global norm of `clip` if it is larger."""
    norm = optax.tree.norm(grads_dot)
    scale = jnp.where(norm > clip, clip / jnp.maximum(norm, clip), 1)
    return jax.tree.map(lambda leaf: leaf * scale.astype(leaf.dtype), grads_dot)
