"""Walks a training forward and back, segment by segment.

The programs of a segment are compiled once, whatever the number of inner steps; what lies between
segments lives here, in Python.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp

from metatune.hypergrad.boundaries import Boundaries
from metatune.hypergrad.checkpoints import Checkpoints
from metatune.hypergrad.estimator import Adjoint, Estimator, Forward
from metatune.hypergrad.problem import (
    Batches,
    Diagnostics,
    Hypergradient,
    Problem,
    Progress,
    PyTree,
    State,
)
from metatune.hypergrad.segments import Segment, advance, bounds, gather, inexact

KEEP_ALL = Checkpoints()
Listener = Callable[[Progress], None]


@partial(jax.jit, static_argnums=(0, 1))
def _forward(
    problem: Problem, estimator: Estimator, eta: PyTree, state: State, segment: Segment
) -> Forward:
    return estimator.forward(problem, eta, state, segment)


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=5)
def _pullback(
    problem: Problem,
    estimator: Estimator,
    eta: PyTree,
    segment: Segment,
    taken: tuple[State, PyTree],
    adjoint: Adjoint,
) -> Adjoint:
    state, saved = taken
    return estimator.pullback(problem, eta, state, segment, saved, adjoint)


@partial(jax.jit, static_argnums=0)
def _objective(problem: Problem, params: PyTree, batch: PyTree) -> tuple[jax.Array, PyTree]:
    return jax.value_and_grad(problem.objective)(params, batch)


@partial(jax.jit, static_argnums=0, donate_argnums=2)
def _advance(
    problem: Problem, eta: PyTree, state: State, segment: Segment
) -> tuple[State, jax.Array]:
    return advance(problem, eta, state, segment)


def hypergradient(
    problem: Problem,
    eta: PyTree,
    state: State,
    batches: Batches,
    outer_batches: Sequence[PyTree],
    *,
    steps: int,
    estimator: Estimator,
    checkpoints: Checkpoints = KEEP_ALL,
    listener: Listener | None = None,
) -> Hypergradient:
    """The derivative of the objective after `steps` inner steps with respect to η.

    `F = mean over outer batches of objective(θ_T, batch)`; its gradient is accumulated batch by
    batch before the backward sweep starts, so that many outer batches need no more memory than one.

    Args:
        problem: the training and its objective; a static argument of the compiled programs.
        eta: meta-parameters η, any pytree of floating-point arrays.
        state: (θ_0, υ_0); left untouched.
        batches: the batch of an inner step; asked more than once for the same step, and must give
            the same each time.
        outer_batches: held-out batches of one shape.
        steps: the horizon T.
        estimator: how to differentiate.
        checkpoints: which states between segments are kept, and where.
        listener: is told after each segment where the computation stands.

    Returns:
        Value, gradient, trained state and diagnostics.

    Raises:
        ValueError: no inner step, or no outer batch.
        CheckpointError: a state can't be kept, for want of room or of permission.
        ReplayError: a segment that was run again led elsewhere.
    """
    if steps < 1:
        raise ValueError(f"steps = {steps}: at least one inner step is needed")
    if not outer_batches:
        raise ValueError("outer_batches is empty: the objective needs at least one batch")
    cuts, losses = bounds(steps, estimator.segment), []

    def drawn(index: int) -> Segment:
        return gather(batches, *cuts[index], estimator.segment)

    def run(index: int, state: State) -> Forward:
        return _forward(problem, estimator, eta, state, drawn(index))

    def heard(index: int, segment_losses: jax.Array) -> None:
        start, stop = cuts[index]
        losses.append(segment_losses[: stop - start])
        _tell(listener, "forward", stop, steps, losses[-1])

    with checkpoints.open() as store:
        plan = checkpoints.plan(len(cuts))
        boundaries = Boundaries(run, len(cuts), saves=estimator.saves, policy=plan, store=store)
        state = boundaries.forward(jax.tree.map(_strong, state), heard)
        value, adjoint = _end(problem, eta, state, outer_batches)
        for index in reversed(range(len(cuts))):
            segment = drawn(index)
            # Work that is queued holds on to its states: none is fetched before it is needed.
            jax.block_until_ready(adjoint)
            adjoint = _pullback(problem, estimator, eta, segment, boundaries.take(index), adjoint)
            _tell(listener, "backward", steps - cuts[index][0], steps, losses[-1], adjoint.params)
        diagnostics = Diagnostics(
            jnp.concatenate(losses), boundaries.peak, store.peak_bytes, boundaries.recomputed
        )
    return Hypergradient(value, adjoint.eta, state, diagnostics)


def _strong(leaf: jax.Array) -> jax.Array:
    """An array whose type is its own, as that of a state that comes back from a store is."""
    return jnp.asarray(leaf, jnp.result_type(leaf))


def _end(
    problem: Problem, eta: PyTree, state: State, outer_batches: Sequence[PyTree]
) -> tuple[jax.Array, Adjoint]:
    """The objective and its adjoint behind the last segment."""
    value, params_bar = _objective(problem, state.params, outer_batches[0])
    for batch in outer_batches[1:]:
        value, params_bar = jax.tree.map(
            jnp.add, (value, params_bar), _objective(problem, state.params, batch)
        )
    value, params_bar = jax.tree.map(lambda x: x / len(outer_batches), (value, params_bar))
    opt_bar = [jnp.zeros_like(leaf) for leaf in inexact(state.opt_state)[0]]
    return value, Adjoint(params_bar, opt_bar, jax.tree.map(jnp.zeros_like, eta))


def train(
    problem: Problem,
    eta: PyTree,
    state: State,
    batches: Batches,
    *,
    steps: int,
    segment: int = 16,
    listener: Listener | None = None,
) -> tuple[State, jax.Array]:
    """Runs the inner training alone, in the memory of one state.

    Args:
        problem: the training.
        eta: meta-parameters η.
        state: (θ_0, υ_0); left untouched.
        batches: the batch of an inner step.
        steps: the number of inner steps.
        segment: inner steps per compiled program.
        listener: is told after each segment where the training stands.

    Returns:
        The trained state, and the inner losses, [steps].
    """
    state = jax.tree.map(jnp.copy, state)
    losses = []
    for start, stop in bounds(steps, segment):
        stretch = gather(batches, start, stop, segment)
        state, segment_losses = _advance(problem, eta, state, stretch)
        losses.append(segment_losses[: stop - start])
        _tell(listener, "forward", stop, steps, losses[-1])
    return state, jnp.concatenate(losses)


def _tell(
    listener: Listener | None,
    phase: str,
    step: int,
    steps: int,
    losses: jax.Array,
    wait: PyTree = None,
) -> None:
    if listener is not None:
        jax.block_until_ready(wait)
        listener(Progress(phase, step, steps, float(losses[-1])))  # pyright: ignore[reportArgumentType]
