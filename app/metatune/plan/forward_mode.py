"""What a hypergradient by forward mode costs: tangents, and a program for each number of them."""

from collections.abc import Callable
from dataclasses import replace
from math import gcd
from pathlib import Path
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np

from metatune.hypergrad import Forward, ForwardGradient, as_argument, programs, shortened
from metatune.hypergrad.estimator import Job
from metatune.hypergrad.forward.push import cuts, filled_up
from metatune.hypergrad.forward.tangents import Tangents
from metatune.hypergrad.segments import inexact
from metatune.hypergrad.stores import device_bytes
from metatune.inner import InnerTraining, estimators
from metatune.plan.compiling import Analyse, analysed, compilation_seconds
from metatune.plan.cost import Cost, Seconds
from metatune.plan.memory import Memory, logits_bytes
from metatune.plan.progress import Tell
from metatune.plan.timing import Line, Lines, Probe
from metatune.plan.work import Work, horizon, side_by_side
from metatune.recipe import schema
from metatune.tunables import Begins

MEASURED: Final = 8
"""Directions that are measured at most: what one more of them costs is the same from there on."""
DIRECTION: Final = 2.26
"""Inner steps that a direction takes for each inner step (BENCHMARKS.md, forward mode)."""
OfForward = Work[Forward | ForwardGradient]
"""A training with an estimator of forward mode."""
PLAIN, PUSH = "training", "tangents"
"""The programs: of the training alone, and with directions."""


def cost(
    training: InnerTraining,
    spec: schema.ForwardSpec | schema.ForwardGradientSpec,
    _: Path,
    tell: Tell,
    analyse: Analyse[Any] = analysed,
) -> Cost:
    """Of a hypergradient.

    Args:
        training: what is differentiated.
        spec: the estimator.
        tell: is told how far the prediction is.
        analyse: compiles; on devices that aren't here for all directions of a chunk at once.

    Raises:
        EstimatorError: the tangents exceed their budget.
    """
    estimator = shortened(estimators.build(spec), horizon(training.recipe).window)
    work: OfForward = Work(training, estimator)
    size = sum(leaf.size for leaf in jax.tree.leaves(training.initial_eta()))
    job, push = work.job(), estimator.push
    clip, axis, onsets = push.clip, work.axis, _onsets(work, job)
    onsets = filled_up(onsets, axis)
    count = len(onsets)
    chunk = min(push.chunk or count, count)
    chunks = [
        list(cuts(job, onsets[at : at + chunk], work.estimator.segment, axis))
        for at in range(0, count, chunk)
    ]
    # Directions of a chunk are spread over devices, as many as divide them, unless each training
    # lies on several itself: then over the axis of its mesh for them, if there is one.
    active = [sorted({cut.active for cut in chunk}) for chunk in chunks]
    own = len(jax.devices()) if training.layout is None else 1
    devices = gcd(*(n for each in active for n in each), own)
    most = max(each[-1] for each in active) // devices
    few = most if work.elsewhere else min(most, axis.filled_up(MEASURED))
    held = most // axis.parts  # of a program's directions those of a device
    problem, held_out = work.argument(), work.given(_held_out(work)[0])
    programs_of = {
        PUSH: lambda: _pushing(work, clip, most, size),
        PLAIN: lambda: programs.advance.trace(*_given(work, 0, size)),
        "objective": lambda: programs.objective.trace(problem, work.state().params, held_out),
    }
    if not most:  # none begins before the end
        del programs_of[PUSH]
    compiled = analyse(programs_of, tell)
    largest = compiled.get(PUSH, compiled[PLAIN])
    # A program for each number of directions that act, each as long to compile as the largest.
    compilation = compilation_seconds(compiled.values())
    compilation *= len({n for each in active for n in each})

    one, state = _tangent_bytes(work), device_bytes(work.state())
    before = max((each[-2] for each in active if len(each) > 1), default=0)
    before //= devices * axis.parts
    phases = [
        (held * one, largest.temporary),
        (held * one, compiled["objective"].temporary + work.averaged_bytes()),
        ((held + before) * one, 0),  # when the last directions begin, a copy of those before
    ]
    tangents, temporaries = max(phases, key=sum)
    directions = 2 * most * size * 4  # with those that have begun
    logits = min(logits_bytes(work, 1 + held), temporaries)
    memory = Memory(
        # The first state is the caller's; another is the training's.
        2 * state + work.beside_bytes(),
        tangents + directions,
        temporaries - logits,
        logits,
        host=0,
        disk=0,
        recomputed_segments=0,
    )

    def probes() -> tuple[Probe, ...]:
        plain = Probe(compiled[PLAIN], work.most, _run(work, 0, size))
        if not most:
            return (plain,)
        pushed = largest
        if few < most:
            pushed = analysed({PUSH: lambda: _pushing(work, clip, few, size)}, tell)[PUSH]
        return plain, Probe(pushed, work.most, _run(work, few, size))

    objective = len(chunks) * work.objective_gradients()

    def seconds(lines: Lines) -> Seconds:
        plain = lines[PLAIN]
        pushed = lines.get(PUSH, counted(plain, few))
        total = objective * plain.step
        for cut in (cut for chunk in chunks for cut in chunk):
            share = cut.active / devices / max(1, few)
            steps = plain.step + share * max(0.0, pushed.step - plain.step)
            segment = pushed.segment if cut.active else plain.segment
            total += segment + (cut.stop - cut.first) * steps
        return Seconds(total, plain)

    return Cost(memory, compilation, probes, seconds)


def _onsets(work: OfForward, job: Job) -> list[int]:
    """The inner steps that directions are pushed from, in ascending order."""
    if not work.elsewhere or not job.start_counts or not isinstance(work.estimator, Forward):
        return sorted(work.estimator.onsets(job).tolist())
    # No state is here that would tell of coordinates of a start that they don't move it.
    of_steps = work.estimator.onsets(replace(job, problem=replace(job.problem, start=None)))
    begins = {tunable.key for tunable in work.training.tunables if isinstance(tunable, Begins)}
    moves = [np.full(leaf.size, key in begins) for key, leaf in sorted(job.eta.items())]
    return sorted(np.where(np.concatenate(moves), job.first, of_steps).tolist())


def counted(plain: Line, directions: int) -> Line:
    """A training with so many directions, from the training alone."""
    return Line(plain.segment, plain.step * (1 + DIRECTION * directions))


def _run(work: Work, directions: int, size: int) -> Callable[[Any, int], Any]:
    """Runs a program of so many directions."""
    shapes = _given(work, directions, size)
    problem, eta = as_argument(work.training.reweighted), work.training.initial_eta()
    state = work.training.initialise(jax.random.key(0))

    def run(program: Any, steps: int) -> Any:
        segment, copy = work.segment(steps), jax.tree.map(jnp.copy, state)
        if not directions:
            return program(problem, eta, copy, segment)
        along = jnp.ones(shapes[2].shape, shapes[2].dtype)
        zeros = jax.tree.map(
            lambda leaf: jnp.zeros(leaf.shape, leaf.dtype, device=leaf.sharding), shapes[4]
        )
        return program(problem, eta, along, copy, zeros, segment)

    return run


def _tangent_bytes(work: Work) -> int:
    state = work.state()
    return device_bytes((state.params, inexact(state.opt_state)[0]))


def _held_out(work: Work) -> list[Any]:
    return work.held_out(work.recipe.outer.objective.sequences)


def _given(work: Work, directions: int, size: int) -> tuple[Any, ...]:
    """The arguments of a program, as shapes: of the training alone without directions."""
    problem, eta = work.argument(), work.eta()
    state, segment = work.state(), work.given(work.segment(1))
    if not directions:
        return problem, eta, state, segment
    floats = Tangents(state.params, inexact(state.opt_state)[0])
    tangents = side_by_side(floats, directions, work.axis)
    dtype = np.result_type(*(leaf.dtype for leaf in jax.tree.leaves(eta)))
    along = jax.ShapeDtypeStruct((directions, size), dtype)
    return problem, eta, along, state, tangents, segment


def _pushing(work: Work, clip: float | None, directions: int, size: int) -> Any:
    """The program of a segment with so many directions, traced."""
    problem, *given = _given(work, directions, size)
    return programs.push.trace(problem, clip, work.axis, *given)
