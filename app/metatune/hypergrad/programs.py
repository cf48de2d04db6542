"""The compiled programs: all that runs on a device.

Compiled once for a problem and the shapes of its arrays, whatever the number of inner steps.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh
from jaxtyping import Array, Float, PyTree

from metatune.hypergrad import segments, start
from metatune.hypergrad.forward import tangents as forward_mode
from metatune.hypergrad.forward.tangents import Tangents
from metatune.hypergrad.problem import Problem, State
from metatune.hypergrad.reverse import growth
from metatune.hypergrad.reverse.adjoint import Adjoint, ReverseMode, SegmentRun
from metatune.hypergrad.segments import Segment
from metatune.hypergrad.shapes import Batch, Eta, Floats, Params, Parts, Scalar
from metatune.hypergrad.sharding import ALL, EACH, MemberAxis


@partial(jax.jit, static_argnums=1)
def forward(
    problem: Problem, estimator: ReverseMode, eta: Eta, state: State, segment: Segment
) -> SegmentRun:
    """A segment forward."""
    return estimator.forward(problem, eta, state, segment)


@partial(jax.jit, static_argnums=1, donate_argnums=5)
def pullback(
    problem: Problem,
    estimator: ReverseMode,
    eta: Eta,
    segment: Segment,
    taken: tuple[State, PyTree],
    adjoint: Adjoint,
    largest: Float[Array, "*M"] | None = None,
) -> tuple[Adjoint, Float[Array, "*M"] | None]:
    """A segment backward; `taken` is the state before it and what its forward run saved."""
    state, saved = taken
    return estimator.pullback(problem, eta, state, segment, saved, adjoint, largest)


@jax.jit
def objective(problem: Problem, params: Params, batch: Batch) -> tuple[Scalar, Params]:
    """The objective on a batch, and its gradient in the parameters.

    With a `whole`, that of a batch that is all of them.
    """

    def of_all(params: Params) -> Scalar:
        found = problem.objective(params, batch)
        return found if problem.whole is None else problem.whole(found)

    return jax.value_and_grad(of_all)(params)


@jax.jit
def objective_along(problem: Problem, params: Params, batch: Batch, bar: Parts) -> Params:
    """What a batch adds to the gradient in the parameters; `bar` is that in its `value`."""
    return jax.vjp(lambda params: problem.objective(params, batch), params)[1](bar)[0]


@jax.jit
def value(problem: Problem, params: Params, batch: Batch) -> Parts:
    """The objective on a batch, or what it is made of."""
    return problem.objective(params, batch)


@jax.jit
def whole(problem: Problem, mean: Parts) -> tuple[Scalar, Parts]:
    """The objective of the mean over the batches of `value`, and its gradient in that."""
    if problem.whole is None:
        raise ValueError("the mean is the objective")
    return jax.value_and_grad(problem.whole)(mean)


@jax.jit
def evaluated(problem: Problem, state: State) -> Params:
    """The parameters that the objective is taken of, where they aren't those that are trained."""
    if problem.evaluated is None:
        raise ValueError("the parameters that are trained are what is evaluated")
    return problem.evaluated(state.params, state.opt_state)


@jax.jit
def evaluated_bar(problem: Problem, state: State, bar: Params) -> tuple[Params, Floats]:
    """The adjoint of a state, from that of what is evaluated of it."""
    floats, rebuild = segments.inexact(state.opt_state)

    def of(params: Params, floats: Floats) -> Params:
        return evaluated(problem, State(params, rebuild(floats)))

    return jax.vjp(of, state.params, floats)[1](bar)


@partial(jax.jit, donate_argnums=2)
def advance(
    problem: Problem, eta: Eta, state: State, segment: Segment
) -> tuple[State, Float[Array, "length"]]:
    """A segment of training alone; gives the memory of the state to the next one."""
    return segments.advance(problem, eta, state, segment)


@partial(jax.jit, static_argnums=(1, 2), donate_argnums=(5, 6))
def push(
    problem: Problem,
    clip: float | None,
    over: Mesh | MemberAxis,
    eta: Eta,
    directions: Float[Array, "n N"],
    state: State,
    tangents: Tangents,
    segment: Segment,
) -> tuple[State, Tangents, Float[Array, "length"]]:
    """A segment forward with tangents along directions.

    These are spread `over` a mesh of their own, a whole training on each device, or cut on that of
    the training. The memory of state and tangents is given to the next ones.
    """
    axis = over.name if isinstance(over, MemberAxis) else None

    def run(
        problem: Problem,
        eta: Eta,
        directions: Float[Array, "own N"],
        state: State,
        tangents: Tangents,
        segment: Segment,
    ) -> tuple[State, Tangents, Float[Array, "length"]]:
        along = jax.vmap(ravel_pytree(eta)[1])(directions)
        return forward_mode.push_segment(problem, eta, along, state, tangents, segment, clip, axis)

    if isinstance(over, Mesh):
        run = jax.shard_map(
            run,
            mesh=over,
            in_specs=(ALL, ALL, EACH, ALL, EACH, ALL),
            out_specs=(ALL, EACH, ALL),
            check_vma=False,  # the training is the same on all devices: each computes all of it
        )
    return run(problem, eta, directions, state, tangents, segment)


@partial(jax.jit, static_argnums=0)
def contract(
    mesh: Mesh | None, bar: tuple[Params, Floats | None], tangents: Tangents
) -> Float[Array, "n"]:
    """The derivatives of the objective along the directions of the tangents, on all devices."""
    found = forward_mode.contract(*bar, tangents)
    if mesh is None:
        return found
    return jax.lax.with_sharding_constraint(found, jax.NamedSharding(mesh, ALL))


@partial(jax.jit, static_argnums=0)
def norms(mesh: Mesh | None, tangents: Tangents) -> Float[Array, "2"]:
    """Norms of tangents in all directions together: of parameters, of optimizer state."""
    found = jnp.stack(growth.norms(tangents, None))
    if mesh is None:
        return found
    return jax.lax.with_sharding_constraint(found, jax.NamedSharding(mesh, ALL))


onsets = jax.jit(forward_mode.onsets)

begin = jax.jit(start.begin)
start_pulled = jax.jit(start.pulled)
start_pushed = jax.jit(start.pushed, static_argnums=4)
start_moves = jax.jit(start.moves)


@jax.jit
def begin_each(problem: Problem, etas: Eta, state: State) -> State:
    """Where several trainings begin from one state, each with meta-parameters of its own."""
    return jax.vmap(start.begin, in_axes=(None, 0, None))(problem, etas, state)


@partial(jax.jit, donate_argnums=2)
def advance_each(
    problem: Problem, etas: Eta, states: State, segment: Segment
) -> tuple[State, Float[Array, "n length"]]:
    """A segment of several trainings, each with meta-parameters of its own, [n, ...]."""
    each = jax.vmap(segments.advance, in_axes=(None, 0, 0, None))
    return each(problem, etas, states, segment)


@jax.jit
def value_each(problem: Problem, params: Params, batch: Batch) -> Parts:
    """As `value`, of several trainings, [n, ...]."""
    return jax.vmap(problem.objective, in_axes=(0, None))(params, batch)


@jax.jit
def whole_each(problem: Problem, mean: Parts) -> Float[Array, "n"]:
    """As the value of `whole`, of several trainings."""
    return jax.vmap(lambda mean: whole(problem, mean)[0])(mean)
