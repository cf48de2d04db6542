"""What a hypergradient by reverse mode costs: its programs, and what is kept between sweeps."""

import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from metatune.hypergrad import Checkpoints, budget, programs, shortened
from metatune.hypergrad.reverse_mode import Adjoint, ReverseMode
from metatune.hypergrad.segments import inexact
from metatune.hypergrad.stores import Device, free_memory, tree_bytes
from metatune.inner import InnerTraining, estimators
from metatune.plan.cost import Cost
from metatune.plan.memory import Memory, logits_bytes, temporary
from metatune.plan.pace import MORE, line, seconds
from metatune.plan.work import Work, horizon, together
from metatune.recipe import schema


class Compiled(NamedTuple):
    """The programs of a hypergradient.

    Attributes:
        forward: a segment forward.
        pullback: a segment backward.
        objective: the objective on a held-out batch, and its gradient.
        saved_bytes: of what a segment saves for its pullback.
    """

    forward: Any
    pullback: Any
    objective: Any
    saved_bytes: int


def cost(training: InnerTraining, spec: schema.MixFlow | schema.Reverse, folder: Path) -> Cost:
    """Of a hypergradient.

    Args:
        training: what is differentiated.
        spec: the estimator.
        folder: where checkpoints would lie on disk.

    Raises:
        CheckpointError: nothing fits the budget of the checkpoints.
    """
    began = time.perf_counter()
    estimator = shortened(estimators.build(spec), horizon(training.recipe).window)
    work = Work(training, estimator, together(training.recipe))
    compiled = _compiled(work, estimator)
    compilation = time.perf_counter() - began
    needed = _memory(work, compiled, estimators.checkpoints(spec, folder))
    return Cost(needed, compilation, partial(_seconds, work, compiled, needed))


def _adjoint(work: Work) -> Adjoint:
    """As shapes."""
    state = work.state()
    return Adjoint(state.params, inexact(state.opt_state)[0], work.eta())


def _compiled(work: Work, estimator: ReverseMode) -> Compiled:
    problem = work.problem
    eta, state, segment = work.eta(), work.state(), work.segment(1)
    run = partial(programs.forward, problem, estimator)
    saved = jax.eval_shape(run, eta, state, segment).saved
    held_out = work.held_out(work.recipe.outer.objective.sequences)[0]
    return Compiled(
        programs.forward.lower(problem, estimator, eta, state, segment).compile(),
        programs.pullback.lower(
            problem, estimator, eta, segment, (state, saved), _adjoint(work)
        ).compile(),
        programs.objective.lower(problem, state.params, held_out).compile(),
        tree_bytes(saved),
    )


def _memory(work: Work, compiled: Compiled, checkpoints: Checkpoints) -> Memory:
    state, adjoint = tree_bytes(work.state()), tree_bytes(_adjoint(work))
    saved = compiled.saved_bytes
    job = work.job()
    segments = len(job.bounds(job.first, job.stop, work.estimator.segment))
    kept = checkpoints.plan(segments, lambda: (state, saved), _free(checkpoints))
    kept_cost = budget.cost(kept, segments, state, saved)
    on_device = checkpoints.store == "device"
    # The first state is the caller's; where it is kept on the device, it is the same array.
    carry = kept_cost.peak_bytes if on_device else 0
    first = 0 if on_device and segments > 1 else state
    forward, pullback, objective = (
        temporary(program) for program in (compiled.forward, compiled.pullback, compiled.objective)
    )
    # What is alive beside kept states and temporary arrays, and what the program needs.
    phases = [
        (first + 2 * state, saved + forward),  # the last segment: a state in, a state out
        # The last state, that in hand, and what is averaged of it.
        (first + 2 * state + adjoint + work.averaged_bytes(), saved + objective),
        (first + 2 * state + adjoint, saved + pullback),
    ]
    if kept_cost.recomputed_segments:
        phases.append((first + 3 * state + adjoint, saved + forward))
    states, temporaries = max(phases, key=sum)
    logits = min(logits_bytes(work, work.members or 1), temporaries)
    return Memory(
        states + work.beside_bytes(),
        carry,
        temporaries - logits,
        logits,
        kept_cost.peak_bytes if checkpoints.store == "host" else 0,
        kept_cost.peak_bytes if checkpoints.store == "disk" else 0,
        kept_cost.recomputed_segments,
    )


def _seconds(work: Work, compiled: Compiled, memory: Memory) -> float:
    """Of a hypergradient, from a few steps."""
    job, length = work.job(), work.estimator.segment
    before, cuts = job.bounds(0, job.first, length), job.bounds(job.first, job.stop, length)
    batches = work.held_out(work.recipe.outer.objective.sequences)
    (eta, state), problem = work.begun(), work.problem
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), _adjoint(work))

    def run_forward(steps: int) -> Any:
        return compiled.forward(problem, eta, state, work.segment(steps))

    saved = run_forward(MORE).saved

    def run_backward(steps: int) -> Any:
        adjoint = jax.tree.map(jnp.copy, zeros)
        return compiled.pullback(problem, eta, work.segment(steps), (state, saved), adjoint)

    forward, backward = line(run_forward, work), line(run_backward, work)
    objective = seconds(lambda: compiled.objective(problem, state.params, batches[0]))
    return (
        forward.over(before)
        + forward.over(cuts)
        + backward.over(cuts)
        + memory.recomputed_segments * forward.over(cuts) / len(cuts)
        + work.measurements() * objective
    )


def _free(checkpoints: Checkpoints) -> Callable[[], int]:
    """What is free where states are kept."""
    if checkpoints.folder is not None:
        return lambda: shutil.disk_usage(_existing(checkpoints.folder or Path())).free
    return Device().free_bytes if checkpoints.store == "device" else free_memory


def _existing(folder: Path) -> Path:
    """The folder, or the first one above it that is there."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
