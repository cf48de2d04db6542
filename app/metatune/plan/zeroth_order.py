"""What a hypergradient by central differences costs: whole trainings, several at a time."""

from collections.abc import Mapping, Sequence
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from metatune.hypergrad import as_argument, programs, shortened
from metatune.hypergrad.stores import device_bytes
from metatune.inner import InnerTraining, estimators
from metatune.plan.compiling import (
    Analyse,
    Analysed,
    Found,
    Program,
    analysed,
    compilation_seconds,
)
from metatune.plan.cost import OF_GRADIENT, Cost, Seconds
from metatune.plan.memory import Memory, logits_bytes
from metatune.plan.progress import Tell
from metatune.plan.timing import Lines, Probe
from metatune.plan.work import Work, horizon, side_by_side
from metatune.recipe import schema

ONE, EACH, VALUE = "training", "trainings at a time", "objective"
"""The programs."""


def cost(
    training: InnerTraining,
    spec: schema.ZerothOrderSpec,
    _: Path,
    tell: Tell,
    analyse: Analyse[Any] = analysed,
) -> Cost:
    """Of a hypergradient.

    Args:
        training: what is differentiated.
        spec: the estimator.
        tell: is told how far the prediction is.
        analyse: compiles.
    """
    work = Work(training, shortened(estimators.build(spec), horizon(training.recipe).window))
    at_a_time = 2 * min(spec.chunk, spec.directions)
    compiled = compiled_for(work, at_a_time, tell, analyse)
    one = device_bytes(work.state())
    # The caller's state, the one that all trainings share, the trained one, and those in pairs.
    phases = [
        (3 * one, compiled[ONE].temporary),
        ((3 + at_a_time) * one, compiled[EACH].temporary),
        ((3 + at_a_time) * one, measuring_bytes(work, compiled, at_a_time)),
    ]
    chunks = ceil(spec.directions / spec.chunk)
    job, length = work.job(), work.estimator.segment
    before, cuts = job.bounds(0, job.first, length), job.bounds(job.first, job.stop, length)
    values = OF_GRADIENT * work.objective_gradients()

    def seconds(lines: Lines) -> Seconds:
        alone, each = lines[ONE], lines[EACH]
        trainings = alone.over(before) + alone.over(cuts) + chunks * each.over(cuts)
        return Seconds(trainings + values * (alone.step + chunks * each.step), alone)

    return Cost(
        memory_of(work, at_a_time, phases),
        compilation_seconds(compiled.values()),
        partial(probes, work, compiled, at_a_time),
        seconds,
    )


def compiled_for(
    work: Work, at_a_time: int, tell: Tell, analyse: Analyse[Found]
) -> dict[str, Found]:
    """The programs of one training and of so many at a time."""
    problem, eta, state = work.argument(), work.eta(), work.state()
    segment = work.given(work.segment(1))
    etas, states = side_by_side(eta, at_a_time), side_by_side(state, at_a_time)
    held_out = work.given(work.held_out(work.recipe.outer.objective.sequences)[0])
    return analyse(
        {
            EACH: lambda: programs.advance_each.trace(problem, etas, states, segment),
            ONE: lambda: programs.advance.trace(problem, eta, state, segment),
            VALUE: lambda: programs.value_each.trace(problem, states.params, held_out),
        },
        tell,
    )


def measuring_bytes(work: Work, compiled: Mapping[str, Analysed], at_a_time: int) -> int:
    """What measuring so many trainings takes beside their states."""
    return compiled[VALUE].temporary + at_a_time * work.averaged_bytes()


def memory_of(work: Work, at_a_time: int, phases: Sequence[tuple[int, int]]) -> Memory:
    """At the peak of so many trainings at a time.

    Args:
        work: what an outer step works on.
        at_a_time: trainings.
        phases: of the computation, bytes of states and of temporaries.
    """
    states, temporaries = max(phases, key=sum)
    logits = min(logits_bytes(work, at_a_time), temporaries)
    return Memory(
        states + work.beside_bytes(),
        0,
        temporaries - logits,
        logits,
        host=0,
        disk=0,
        recomputed_segments=0,
    )


def probes(work: Work, compiled: Mapping[str, Program], at_a_time: int) -> tuple[Probe, ...]:
    """The programs that are timed: one training, and so many at a time."""
    training = work.training
    problem, eta = as_argument(training.reweighted), training.initial_eta()
    state = training.initialise(jax.random.key(0))

    def repeated(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: jnp.stack([leaf] * at_a_time), tree)

    def run(program: Any, steps: int) -> Any:
        return program(problem, eta, jax.tree.map(jnp.copy, state), work.segment(steps))

    def run_each(program: Any, steps: int) -> Any:
        return program(problem, repeated(eta), repeated(state), work.segment(steps))

    return Probe(compiled[ONE], work.most, run), Probe(compiled[EACH], work.most, run_each)
