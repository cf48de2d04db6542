"""Walks a training forward and back, segment by segment.

The programs of a segment are compiled once, whatever the number of inner steps; what lies between
segments lives here, in Python.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp

from metatune.hypergrad import programs
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
    as_argument,
)
from metatune.hypergrad.segments import bounds, gather, inexact
from metatune.hypergrad.stores import tree_bytes

KEEP_ALL = Checkpoints()
Listener = Callable[[Progress], None]


def hypergradient(
    problem: Problem,
    eta: PyTree,
    state: State,
    batches: Batches,
    outer_batches: Sequence[PyTree],
    *,
    steps: int,
    estimator: Estimator,
    start: int = 0,
    window: int | None = None,
    checkpoints: Checkpoints = KEEP_ALL,
    listener: Listener | None = None,
) -> Hypergradient:
    """The derivative of the objective after `steps` inner steps with respect to η.

    `F = mean over outer batches of objective(θ_T, batch)`; its gradient is accumulated batch by
    batch before the backward sweep starts, so that many outer batches need no more memory than one.

    With a `window` the derivative is truncated: steps before the last `window` are run, but what η
    did in them is left out (Shaban et al., Truncated Back-propagation for Bilevel Optimization,
    2019). With `start`, a training that is under way goes on for `steps` more.

    Args:
        problem: the training and its objective.
        eta: meta-parameters η, any pytree of floating-point arrays.
        state: the state before inner step `start`; left untouched.
        batches: the batch of an inner step; asked more than once for the same step, and must give
            the same each time.
        outer_batches: held-out batches of one shape.
        steps: the horizon: inner steps from `start` to the objective.
        estimator: how to differentiate.
        start: the first inner step.
        window: differentiate through so many steps at the end; None for all.
        checkpoints: which states between segments are kept, and where.
        listener: is told after each segment where the computation stands.

    Returns:
        Value, gradient, trained state and diagnostics.

    Raises:
        ValueError: no inner step, an empty window, or no outer batch; a batch that doesn't split
            into micro-batches.
        CheckpointError: a state can't be kept, for want of room or of permission.
        ReplayError: a segment that was run again led elsewhere.
    """
    for name, value in (("steps", steps), ("window", window)):
        if value is not None and value < 1:
            raise ValueError(f"{name} = {value}: at least one inner step is needed")
    if not outer_batches:
        raise ValueError("outer_batches is empty: the objective needs at least one batch")
    problem, stop, losses = as_argument(problem), start + steps, []
    first = stop - min(window or steps, steps)
    _refuse_uneven(problem, batches(start))

    def forward(bounds: tuple[int, int], state: State) -> Forward:
        segment = gather(batches, *bounds, estimator.segment)
        return programs.forward(problem, estimator, eta, state, segment)

    def heard(bounds: tuple[int, int], segment_losses: jax.Array) -> None:
        losses.append(segment_losses[: bounds[1] - bounds[0]])
        _tell(listener, "forward", bounds[1] - start, steps, losses[-1])

    state = jax.tree.map(_strong, state)
    for cut in bounds(start, first, estimator.segment):
        state, segment_losses, _ = forward(cut, state)
        heard(cut, segment_losses)
    cuts = bounds(first, stop, estimator.segment)
    with checkpoints.open() as store:

        def sizes() -> tuple[int, int]:
            saved = jax.eval_shape(partial(forward, cuts[0]), state).saved
            return tree_bytes(state), tree_bytes(saved)

        boundaries = Boundaries(
            lambda index, state: forward(cuts[index], state),
            len(cuts),
            saves=estimator.saves,
            kept=checkpoints.plan(len(cuts), sizes, store.place.free_bytes),
            store=store,
        )
        state = boundaries.forward(state, lambda index, losses: heard(cuts[index], losses))
        value, adjoint = _end(problem, eta, state, outer_batches)
        for index in reversed(range(len(cuts))):
            segment = gather(batches, *cuts[index], estimator.segment)
            # Work that is queued holds on to its states: none is fetched before it is needed.
            jax.block_until_ready(adjoint)
            adjoint = programs.pullback(
                problem, estimator, eta, segment, boundaries.take(index), adjoint
            )
            _tell(listener, "backward", stop - cuts[index][0], steps, losses[-1], adjoint.params)
        diagnostics = Diagnostics(
            jnp.concatenate(losses), boundaries.peak, store.peak_bytes, boundaries.recomputed
        )
    return Hypergradient(value, adjoint.eta, state, diagnostics)


def _refuse_uneven(problem: Problem, batch: PyTree) -> None:
    """Each leaf of a batch has to split into micro-batches."""
    for leaf in jax.tree.leaves(batch):
        if problem.micro_batches > 1 and (not leaf.ndim or len(leaf) % problem.micro_batches):
            raise ValueError(
                f"a batch with a leaf of shape {leaf.shape} doesn't split into "
                f"{problem.micro_batches} micro-batches of one size; choose a number that divides "
                "its first axis"
            )


def _strong(leaf: jax.Array) -> jax.Array:
    """An array whose type is its own, as that of a state that comes back from a store is."""
    return jnp.asarray(leaf, jnp.result_type(leaf))


def _end(
    problem: Problem, eta: PyTree, state: State, outer_batches: Sequence[PyTree]
) -> tuple[jax.Array, Adjoint]:
    """The objective and its adjoint behind the last segment."""
    value, params_bar = programs.objective(problem, state.params, outer_batches[0])
    for batch in outer_batches[1:]:
        value, params_bar = jax.tree.map(
            jnp.add, (value, params_bar), programs.objective(problem, state.params, batch)
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
    start: int = 0,
    segment: int = 16,
    listener: Listener | None = None,
) -> tuple[State, jax.Array]:
    """Runs the inner training alone, in the memory of one state.

    Args:
        problem: the training.
        eta: meta-parameters η.
        state: the state before inner step `start`; left untouched.
        batches: the batch of an inner step.
        steps: the number of inner steps.
        start: the first of them.
        segment: inner steps per compiled program.
        listener: is told after each segment where the training stands.

    Returns:
        The trained state, and the inner losses, [steps].
    """
    problem, losses = as_argument(problem), []
    _refuse_uneven(problem, batches(start))
    state = jax.tree.map(jnp.copy, state)
    for first, stop in bounds(start, start + steps, segment):
        stretch = gather(batches, first, stop, segment)
        state, segment_losses = programs.advance(problem, eta, state, stretch)
        losses.append(segment_losses[: stop - first])
        _tell(listener, "forward", stop - start, steps, losses[-1])
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
