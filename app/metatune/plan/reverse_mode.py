"""What a hypergradient by reverse mode costs: its programs, and what is kept between sweeps."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from metatune.hypergrad import Checkpoints, MixFlow, Reverse, programs, shortened
from metatune.hypergrad.reverse import budget
from metatune.hypergrad.reverse.adjoint import Adjoint, ReverseMode
from metatune.hypergrad.segments import inexact
from metatune.hypergrad.sharding import placed_stacks
from metatune.hypergrad.stores import Device, device_bytes, free_memory
from metatune.inner import InnerTraining, estimators
from metatune.plan.compiling import Program, analysed, compilation_seconds
from metatune.plan.cost import Cost, Seconds
from metatune.plan.memory import Memory, host_bytes_of, logits_bytes
from metatune.plan.progress import Tell
from metatune.plan.timing import Line, Lines, Probe
from metatune.plan.work import Work, horizon, together
from metatune.recipe import schema

Spec = schema.MixFlowSpec | schema.ReverseSpec
OfReverse = Work[MixFlow | Reverse]
"""A training with an estimator of reverse mode."""


class Sizes(NamedTuple):
    """Bytes that the programs of a hypergradient need.

    Attributes:
        forward: temporary, of a segment forward.
        pullback: temporary, of a segment backward.
        objective: temporary, of the objective on a held-out batch, and its gradient.
        saved: of what a segment saves for its pullback.
        gradients: of the inner gradients of a segment.
    """

    forward: int
    pullback: int
    objective: int
    saved: int
    gradients: int


def cost(training: InnerTraining, spec: Spec, folder: Path, tell: Tell) -> Cost:
    """Of a hypergradient.

    Args:
        training: what is differentiated.
        spec: the estimator.
        folder: where checkpoints would lie on disk.
        tell: is told how far the prediction is.

    Raises:
        CheckpointError: nothing fits the budget of the checkpoints.
    """
    work = work_of(training, spec)
    compiled = _compiled(work, tell)
    needed = memory(work, _sizes(work, compiled), estimators.checkpoints(spec, folder))
    compilation = compilation_seconds(compiled.values())
    seconds = partial(seconds_of, work, needed.recomputed_segments)
    return Cost(needed, compilation, partial(_probes, work, compiled), seconds)


def seconds_of(work: OfReverse, recomputed_segments: int, lines: Lines) -> Seconds:
    """Of a hypergradient.

    Args:
        work: the training and its estimator.
        recomputed_segments: segments run again for want of a kept state.
        lines: of the programs `forward` and `pullback`; what is counted in them may be something
            else than seconds.
    """
    job, length = work.job(), work.estimator.segment
    before, cuts = job.bounds(0, job.first, length), job.bounds(job.first, job.stop, length)
    objective, members = work.objective_gradients(), work.members or 1
    forward, backward = lines["forward"], lines["pullback"]
    total = (
        forward.over(before)
        + forward.over(cuts)
        + backward.over(cuts)
        + recomputed_segments * forward.over(cuts) / len(cuts)
        + objective * forward.step
    )
    return Seconds(total, Line(forward.segment / members, forward.step / members))


def work_of(training: InnerTraining, spec: Spec) -> OfReverse:
    """The training with an estimator of reverse mode."""
    estimator = shortened(estimators.build(spec), horizon(training.recipe).window)
    return Work(training, estimator, together(training.recipe))


def sizes(training: InnerTraining, spec: Spec, tell: Tell) -> Sizes:
    """Bytes of the programs of an estimator; arguments as of `cost`."""
    work = work_of(training, spec)
    return _sizes(work, _compiled(work, tell))


def memory(
    work: OfReverse,
    needs: Sizes,
    checkpoints: Checkpoints,
    free: Callable[[], int] | None = None,
) -> Memory:
    """Bytes at the peak of a hypergradient.

    Args:
        work: the training and its estimator.
        needs: bytes of its programs.
        checkpoints: what is kept between the sweeps.
        free: bytes where it is kept; by default those of this machine.

    Returns:
        Bytes of each device; of host memory and disk, of each host.

    Raises:
        CheckpointError: nothing fits the budget of the checkpoints.
    """
    state, adjoint = device_bytes(work.state()), device_bytes(adjoint_of(work))
    job, saved = work.job(), needs.saved
    on_device = checkpoints.store == "device"
    counted = (state, saved)
    if work.training.layout is not None and not on_device:
        counted = (host_bytes_of(work.state()), host_bytes_of(saved_by(work, work.estimator)))
    segments = len(job.bounds(job.first, job.stop, work.estimator.segment))
    kept = checkpoints.plan(segments, lambda: counted, free or _free(checkpoints))
    kept_cost = budget.cost(kept, segments, state, saved)
    on_host = budget.cost(kept, segments, *counted)
    # The first state is the caller's; where it is kept on the device, it is the same array.
    carry = kept_cost.peak_bytes if on_device else 0
    if checkpoints.store == "disk" and segments > 1:
        carry = state + saved  # of a segment that is being written, or read
    first = 0 if on_device and segments > 1 else state
    # What is alive beside kept states and temporary arrays, and what the program needs.
    phases = [
        (first + 2 * state, saved + needs.forward),  # the last segment: a state in, a state out
        # The last state, that in hand, and what is averaged of it.
        (first + 2 * state + adjoint + work.averaged_bytes(), saved + needs.objective),
        (first + 2 * state + adjoint, saved + needs.pullback),
    ]
    if kept_cost.recomputed_segments:
        phases.append((first + 3 * state + adjoint, saved + needs.forward))
    states, temporaries = max(phases, key=sum)
    logits = min(logits_bytes(work, work.members_of_a_device), temporaries)
    return Memory(
        states + work.beside_bytes(),
        carry,
        temporaries - logits,
        logits,
        on_host.peak_bytes if checkpoints.store == "host" else 0,
        on_host.peak_bytes if checkpoints.store == "disk" else 0,
        kept_cost.recomputed_segments,
    )


def adjoint_of(work: OfReverse) -> Adjoint:
    """As shapes."""
    state = work.state()
    return Adjoint(state.params, inexact(state.opt_state)[0], work.eta())


def saved_by(work: OfReverse, estimator: ReverseMode) -> Any:
    """What a segment saves for its pullback, as shapes.

    On several devices inner gradients [length, ...] lie as their parameters do.
    """
    state = work.state()
    run = partial(programs.forward, work.problem, estimator)
    saved = jax.eval_shape(run, work.eta(), state, work.segment(1)).saved
    return saved if work.training.layout is None else placed_stacks(saved, state.params)


def traced(work: OfReverse) -> dict[str, Callable[[], Any]]:
    """What traces each program of a hypergradient, by what it does."""
    problem, estimator = work.argument(), work.estimator
    eta, state, segment = work.eta(), work.state(), work.given(work.segment(1))
    taken, adjoint = (state, saved_by(work, estimator)), adjoint_of(work)
    held_out = work.given(work.held_out(work.recipe.outer.objective.sequences)[0])
    return {
        "pullback": partial(
            programs.pullback.trace, problem, estimator, eta, segment, taken, adjoint
        ),
        "forward": partial(programs.forward.trace, problem, estimator, eta, state, segment),
        "objective": partial(programs.objective.trace, problem, state.params, held_out),
    }


def _compiled(work: OfReverse, tell: Tell) -> dict[str, Program]:
    return analysed(traced(work), tell)


def _sizes(work: OfReverse, compiled: dict[str, Program]) -> Sizes:
    estimator = work.estimator
    return Sizes(
        **{name: program.temporary for name, program in compiled.items()},
        saved=device_bytes(saved_by(work, estimator)),
        gradients=device_bytes(saved_by(work, estimator.saving())),
    )


def _probes(work: OfReverse, compiled: dict[str, Program]) -> tuple[Probe, ...]:
    (eta, state), problem = work.begin(), work.problem

    def zero(leaf: jax.ShapeDtypeStruct) -> jax.Array:
        return jnp.zeros(leaf.shape, leaf.dtype, device=leaf.sharding)

    # Gradients of zero take as long as others, and needn't be computed first.
    zeros, saved = jax.tree.map(zero, (adjoint_of(work), saved_by(work, work.estimator)))

    def forward(program: Any, steps: int) -> Any:
        return program(problem, eta, state, work.segment(steps))

    def pullback(program: Any, steps: int) -> Any:
        adjoint = jax.tree.map(jnp.copy, zeros)
        return program(problem, eta, work.segment(steps), (state, saved), adjoint)

    return (
        Probe(compiled["forward"], work.most, forward),
        Probe(compiled["pullback"], work.most, pullback),
    )


def _free(checkpoints: Checkpoints) -> Callable[[], int]:
    """What is free where states are kept."""
    if checkpoints.folder is not None:
        return lambda: shutil.disk_usage(_existing(checkpoints.folder or Path())).free
    return Device().free_bytes if checkpoints.store == "device" else free_memory


def _existing(folder: Path) -> Path:
    """The folder, or the first one above it that is there."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
