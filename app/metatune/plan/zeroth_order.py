"""What a hypergradient by central differences costs: whole trainings, several at a time."""

import time
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from metatune.hypergrad import as_argument, programs, shortened
from metatune.hypergrad.stores import tree_bytes
from metatune.inner import InnerTraining, estimators
from metatune.plan.cost import Cost
from metatune.plan.memory import Memory, logits_bytes, temporary
from metatune.plan.pace import line, seconds
from metatune.plan.work import Work, horizon
from metatune.recipe import schema


class Compiled(NamedTuple):
    """The programs of a hypergradient: of one training, and of a chunk of them."""

    advance: Any
    advance_each: Any
    value: Any
    value_each: Any


def cost(training: InnerTraining, spec: schema.ZerothOrder, _: Path) -> Cost:
    """Of a hypergradient.

    Args:
        training: what is differentiated.
        spec: the estimator.
    """
    work = Work(training, shortened(estimators.build(spec), horizon(training.recipe).window))
    at_a_time = 2 * min(spec.chunk, spec.directions)
    began = time.perf_counter()
    problem, eta, state, segment = (
        as_argument(training.reweighted),
        work.eta(),
        work.state(),
        work.segment(1),
    )
    etas, states = _stacked(eta, at_a_time), _stacked(state, at_a_time)
    held_out = work.held_out(work.recipe.outer.objective.sequences)[0]
    compiled = Compiled(
        programs.advance.lower(problem, eta, state, segment).compile(),
        programs.advance_each.lower(problem, etas, states, segment).compile(),
        programs.value.lower(problem, state.params, held_out).compile(),
        programs.value_each.lower(problem, states.params, held_out).compile(),
    )
    compilation = time.perf_counter() - began
    one = tree_bytes(state)
    # The caller's state, the one that all trainings share, the trained one, and those in pairs.
    phases = [
        (3 * one, temporary(compiled.advance)),
        ((3 + at_a_time) * one, temporary(compiled.advance_each)),
        (
            (3 + at_a_time) * one,
            temporary(compiled.value_each) + at_a_time * work.averaged_bytes(),
        ),
    ]
    states_bytes, temporaries = max(phases, key=sum)
    logits = min(logits_bytes(work, at_a_time), temporaries)
    memory = Memory(
        states_bytes + work.beside_bytes(),
        0,
        temporaries - logits,
        logits,
        host=0,
        disk=0,
        recomputed_segments=0,
    )
    chunks = ceil(spec.directions / spec.chunk)
    return Cost(memory, compilation, partial(_seconds, work, compiled, at_a_time, chunks))


def _seconds(work: Work, compiled: Compiled, at_a_time: int, chunks: int) -> float:
    """Of a hypergradient, from a few steps."""
    job, length = work.job(), work.estimator.segment
    before, cuts = job.bounds(0, job.first, length), job.bounds(job.first, job.stop, length)
    training, batches = work.training, work.held_out(work.recipe.outer.objective.sequences)
    problem, eta = as_argument(training.reweighted), training.initial_eta()
    state = training.initialise(jax.random.key(0))

    def repeated(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: jnp.stack([leaf] * at_a_time), tree)

    def run(steps: int) -> Any:
        copy = jax.tree.map(jnp.copy, state)
        return compiled.advance(problem, eta, copy, work.segment(steps))

    def run_each(steps: int) -> Any:
        states = repeated(state)
        return compiled.advance_each(problem, repeated(eta), states, work.segment(steps))

    alone, each, all_params = line(run, work), line(run_each, work), repeated(state.params)
    value = seconds(lambda: compiled.value(problem, state.params, batches[0]))
    value_each = seconds(lambda: compiled.value_each(problem, all_params, batches[0]))
    return (
        alone.over(before)
        + alone.over(cuts)
        + chunks * each.over(cuts)
        + work.measurements() * (value + chunks * value_each)
    )


def _stacked(tree: Any, count: int) -> Any:
    """Shapes of so many."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((count, *leaf.shape), leaf.dtype), tree)
