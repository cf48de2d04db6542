"""What a hypergradient by forward mode costs: tangents, and a program for each number of them."""

import time
from functools import partial
from math import gcd
from pathlib import Path
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np

from metatune.hypergrad import as_argument, programs, shortened
from metatune.hypergrad.forward import first_steps
from metatune.hypergrad.forward_mode import Tangents
from metatune.hypergrad.push import Cut, Push, cuts
from metatune.hypergrad.segments import inexact
from metatune.hypergrad.stores import tree_bytes
from metatune.inner import InnerTraining, estimators
from metatune.plan.cost import Cost
from metatune.plan.memory import Memory, logits_bytes, temporary
from metatune.plan.pace import Line, line, seconds
from metatune.plan.work import Work, horizon
from metatune.recipe import schema

MEASURED: Final = 8
"""Directions that are measured at most: what one more of them costs is the same from there on."""


def cost(training: InnerTraining, spec: schema.Forward | schema.ForwardGradient, _: Path) -> Cost:
    """Of a hypergradient.

    Args:
        training: what is differentiated.
        spec: the estimator.

    Raises:
        EstimatorError: the tangents exceed their budget.
    """
    work = Work(training, shortened(estimators.build(spec), horizon(training.recipe).window))
    eta = training.initial_eta()
    size = sum(leaf.size for leaf in jax.tree.leaves(eta))
    count = size if isinstance(spec, schema.Forward) else spec.directions
    job, clip = work.job(), None if isinstance(spec, schema.ForwardGradient) else spec.clip_tangents
    Push(work.estimator.segment, spec.chunk, clip, spec.budget_bytes).refuse(job, count)
    onsets = [job.first] * count
    if isinstance(spec, schema.Forward):
        onsets = sorted(first_steps(job).tolist())
    chunk = min(spec.chunk or count, count)
    chunks = [
        list(cuts(job, onsets[at : at + chunk], work.estimator.segment))
        for at in range(0, count, chunk)
    ]
    # Directions of a chunk are spread over devices, as many as divide them.
    active = [sorted({cut.active for cut in chunk}) for chunk in chunks]
    devices = gcd(*(n for each in active for n in each), len(jax.devices()))
    most = max(each[-1] for each in active) // devices
    began = time.perf_counter()
    plain = programs.advance.lower(*_given(work, 0, size)).compile()
    largest = _pushing(work, clip, most, size) if most else plain
    objective = programs.objective.lower(
        as_argument(training.reweighted), work.state().params, _held_out(work)[0]
    ).compile()
    # A program for each number of directions that act, each as long to compile as the largest.
    compilation = (time.perf_counter() - began) * len({n for each in active for n in each})
    few = min(most, MEASURED)
    measured = _pushing(work, clip, few, size) if 0 < few < most else largest

    one, state = _tangent_bytes(work), tree_bytes(work.state())
    before = max((each[-2] for each in active if len(each) > 1), default=0) // devices
    phases = [
        (most * one, temporary(largest)),
        (most * one, temporary(objective) + work.averaged_bytes()),
        ((most + before) * one, 0),  # when the last directions begin, a copy of those before
    ]
    tangents, temporaries = max(phases, key=sum)
    directions = 2 * most * size * 4  # with those that have begun
    logits = min(logits_bytes(work, 1 + most), temporaries)
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
    given = partial(_seconds, work, (plain, measured, objective), few, size, chunks, devices)
    return Cost(memory, compilation, given)


def _seconds(
    work: Work,
    compiled: tuple[Any, Any, Any],
    few: int,
    size: int,
    chunks: list[list[Cut]],
    devices: int,
) -> float:
    """Of a hypergradient, from a few steps of the training, and of it with `few` directions."""
    advance, push, objective = compiled
    plain = _line(work, advance, 0, size)
    pushed = _line(work, push, few, size) if few else plain
    total = 0.0
    for cut in (cut for chunk in chunks for cut in chunk):
        share = cut.active / devices / few if few else 0.0
        steps = plain.step + share * max(0.0, pushed.step - plain.step)
        segment = pushed.segment if cut.active else plain.segment
        total += segment + (cut.stop - cut.first) * steps
    batches = _held_out(work)
    problem = as_argument(work.training.reweighted)
    params = work.training.initialise(jax.random.key(0)).params
    measured = seconds(lambda: objective(problem, params, batches[0]))
    return total + len(chunks) * work.measurements() * measured


def _line(work: Work, program: Any, directions: int, size: int) -> Line:
    """Measures a program, of so many directions."""
    shapes = _given(work, directions, size)
    problem, eta = as_argument(work.training.reweighted), work.training.initial_eta()
    state = work.training.initialise(jax.random.key(0))

    def run(steps: int) -> Any:
        segment, copy = work.segment(steps), jax.tree.map(jnp.copy, state)
        if not directions:
            return program(problem, eta, copy, segment)
        along = jnp.ones(shapes[2].shape, shapes[2].dtype)
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes[4])
        return program(problem, eta, along, copy, zeros, segment)

    return line(run, work)


def _tangent_bytes(work: Work) -> int:
    state = work.state()
    return tree_bytes((state.params, inexact(state.opt_state)[0]))


def _held_out(work: Work) -> list[Any]:
    return work.held_out(work.recipe.outer.objective.sequences)


def _given(work: Work, directions: int, size: int) -> tuple[Any, ...]:
    """The arguments of a program, as shapes: of the training alone without directions."""
    problem, eta = as_argument(work.training.reweighted), work.eta()
    state, segment = work.state(), work.segment(1)
    if not directions:
        return problem, eta, state, segment
    floats = Tangents(state.params, inexact(state.opt_state)[0])
    tangents = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((directions, *leaf.shape), leaf.dtype), floats
    )
    dtype = np.result_type(*(leaf.dtype for leaf in jax.tree.leaves(eta)))
    along = jax.ShapeDtypeStruct((directions, size), dtype)
    return problem, eta, along, state, tangents, segment


def _pushing(work: Work, clip: float | None, directions: int, size: int) -> Any:
    """The program of a segment with so many directions."""
    problem, *given = _given(work, directions, size)
    return programs.push.lower(problem, clip, None, *given).compile()
