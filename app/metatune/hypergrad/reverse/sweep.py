"""The two sweeps of reverse mode: forward through the training, then back, segment by segment."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metatune.hypergrad import programs
from metatune.hypergrad.estimator import EstimatorError, Job
from metatune.hypergrad.hosts import least_of_all
from metatune.hypergrad.problem import Diagnostics, Hypergradient, State
from metatune.hypergrad.reverse.adjoint import Adjoint, ReverseMode, SegmentRun
from metatune.hypergrad.reverse.boundaries import Boundaries
from metatune.hypergrad.reverse.growth import Watch
from metatune.hypergrad.segments import fetch, inexact
from metatune.hypergrad.shapes import Floats, Params, Scalar
from metatune.hypergrad.sharding import placed_stacks


def sweep(estimator: ReverseMode, job: Job) -> Hypergradient:
    """The hypergradient by the pullbacks of an estimator.

    Raises:
        CheckpointError: a state can't be kept, for want of room or of permission.
        EstimatorError: a carry, of which reverse mode has none.
        ReplayError: a segment that was run again led elsewhere.
    """
    if job.carry is not None:
        raise EstimatorError("a reverse-mode estimator can't go on from a carry: leave it out")
    losses = []

    def forward(bounds: tuple[int, int], state: State) -> SegmentRun:
        segment = fetch(job.batches, *bounds, estimator.segment)
        return programs.forward(job.problem, estimator, job.eta, state, segment)

    def heard(bounds: tuple[int, int], segment_losses: Float[Array, "length"]) -> None:
        losses.append(segment_losses[: bounds[1] - bounds[0]])
        job.tell("forward", bounds[1] - job.start, losses[-1])

    state = job.begin()
    value = jnp.zeros(())
    for cut in job.bounds(job.start, job.first, estimator.segment):
        state, segment_losses, _ = forward(cut, state)
        heard(cut, segment_losses)
        if cut[1] in job.points and cut[1] < job.first:
            value += job.value(state, cut[1])
    cuts = job.bounds(job.first, job.stop, estimator.segment)
    with job.checkpoints.open() as store:

        def sizes() -> tuple[int, int]:
            saved = jax.eval_shape(partial(forward, cuts[0]), state).saved
            saved = placed_stacks(saved, state.params)
            return store.place.needed_bytes(state), store.place.needed_bytes(saved)

        def free_bytes() -> int:
            free = store.place.free_bytes()
            arrays = [leaf for leaf in jax.tree.leaves(state) if isinstance(leaf, jax.Array)]
            alone = all(leaf.is_fully_addressable for leaf in arrays)
            return free if alone else least_of_all(free)  # or each process would keep others

        boundaries = Boundaries(
            lambda index, state: forward(cuts[index], state),
            len(cuts),
            saves=estimator.saves,
            kept=job.checkpoints.plan(len(cuts), sizes, free_bytes),
            store=store,
        )
        state = boundaries.forward(state, lambda index, losses: heard(cuts[index], losses))
        # Points are ends of segments, where F adds its gradient to the adjoint of the parameters.
        adjoint = Adjoint(
            jax.tree.map(jnp.zeros_like, state.params),
            [jnp.zeros_like(leaf) for leaf in inexact(state.opt_state)[0]],
            jax.tree.map(jnp.zeros_like, job.eta),
        )
        value, adjoint, bar = _with_objective(job, job.stop, state, value, adjoint)
        watch = Watch(estimator.damping, job.problem.trainings)
        watch.objective(bar)
        watch.boundary(job.stop, adjoint)
        for index in reversed(range(len(cuts))):
            segment = fetch(job.batches, *cuts[index], estimator.segment)
            # Work that is queued holds on to its states: none is fetched before it is needed.
            jax.block_until_ready(adjoint)
            before = boundaries.take(index)
            adjoint, logs = programs.pullback(
                job.problem, estimator, job.eta, segment, before, adjoint, watch.of_steps
            )
            adjoint = watch.segment(adjoint, logs, partial(_anew, job, cuts[index][0], before[0]))
            value, adjoint, bar = _with_objective(job, cuts[index][0], before[0], value, adjoint)
            watch.objective(bar)
            watch.boundary(cuts[index][0], adjoint)
            del before, bar  # or they would lie beside those of the segment before
            job.tell("backward", job.stop - cuts[index][0], losses[-1], wait=adjoint.params)
        gradient = adjoint.eta
        if job.start_counts:
            begin = programs.start_pulled(job.problem, job.eta, job.state, adjoint)
            gradient = jax.tree.map(jnp.add, gradient, begin)
        diagnostics = Diagnostics(
            jnp.concatenate(losses),
            boundaries.peak,
            store.peak_bytes,
            boundaries.recomputed,
            growth=watch.growth(),
        )
    return Hypergradient(value, gradient, state, diagnostics)


def _anew(job: Job, step: int, state: State) -> tuple[Params, Floats] | None:
    """The adjoint of a state that looks no further: of the objective there, with all that is left.

    Returns:
        Its parts of the parameters and of the optimizer state; None before the first step that is
        differentiated, where all is done.
    """
    if step == job.first:
        return None
    weight = sum(of_point for point, of_point in job.points.items() if point > step)
    _, params_bar, opt_bar = job.objective(state, weight)
    if opt_bar is None:
        opt_bar = [jnp.zeros_like(leaf) for leaf in inexact(state.opt_state)[0]]
    return params_bar, opt_bar


def _with_objective(
    job: Job, step: int, state: State, value: Scalar, adjoint: Adjoint
) -> tuple[Scalar, Adjoint, Params | None]:
    """Value and adjoint with what the objective adds at a point; as they are anywhere else.

    Returns:
        Both, and the gradient that was added to the adjoint of the parameters; None for none.
    """
    if step not in job.points:
        return value, adjoint, None
    added, params_bar, opt_bar = job.objective(state, job.points[step])
    adjoint = adjoint._replace(params=jax.tree.map(jnp.add, adjoint.params, params_bar))
    if opt_bar is not None:
        adjoint = adjoint._replace(opt_state=jax.tree.map(jnp.add, adjoint.opt_state, opt_bar))
    return value + added, adjoint, params_bar
