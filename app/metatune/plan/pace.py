"""Seconds of an outer step and of a run: a few steps measured, the rest by counting."""

import time
from collections.abc import Callable
from math import ceil
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp

from metatune.hypergrad import as_argument
from metatune.plan.memory import Memory
from metatune.plan.work import Compiled, Work, horizon
from metatune.recipe import phases

FEW, MORE = 1, 3
"""Inner steps of the two stretches that are measured: their difference is what a step costs."""
ROUNDS: Final = 3


class Line(NamedTuple):
    """Seconds that grow with the number of inner steps.

    Attributes:
        segment: of a segment without a step.
        step: of each inner step in it.
    """

    segment: float
    step: float

    def of(self, steps: int, length: int) -> float:
        """Of `steps` inner steps in segments of `length`."""
        return ceil(steps / length) * self.segment + steps * self.step


class Pace(NamedTuple):
    """Seconds.

    Attributes:
        hypergradient: of one.
        judging: of a judgement.
        outer_step: of an outer step, judging shared out.
        run: of the whole run, compilation and the report included.
        compilation: of all programs.
    """

    hypergradient: float
    judging: float
    outer_step: float
    run: float
    compilation: float


def pace(work: Work, compiled: Compiled, memory: Memory) -> Pace:
    """Measures a few steps and predicts the rest.

    Args:
        work: the training and its estimator.
        compiled: its programs.
        memory: of which the recomputed segments count.
    """
    recipe, outer = work.recipe, work.recipe.outer
    length, (steps, window) = work.estimator.segment, horizon(recipe)
    forward, backward, training = _lines(work, compiled)
    objective, evaluation = _batches(work, compiled)
    hypergradient = (
        forward.of(steps, length)
        + backward.of(window, length)
        + memory.recomputed_segments * forward.of(min(length, window), length)
        + len(work.held_out(outer.objective.sequences)) * objective
    )

    def trainings(count: int, sequences: int) -> float:
        measured = len(work.held_out(sequences)) * evaluation
        return count * (training.of(recipe.inner.steps, length) + measured)

    judging = trainings(outer.judge.seeds, outer.judge.sequences)
    outer_step = hypergradient + judging / outer.judge.every
    report = trainings(2 * outer.report.seeds, outer.report.sequences)
    outer_steps = sum(phase.steps for phase in phases.resolved(outer))
    run = compiled.seconds + outer_steps * outer_step + judging + report
    return Pace(hypergradient, judging, outer_step, run, compiled.seconds)


def _lines(work: Work, compiled: Compiled) -> tuple[Line, Line, Line]:
    """Of the forward sweep, the backward sweep, and a judge's training."""
    training = work.training
    eta = training.initial_eta()
    state = training.initialise(jax.random.key(0))
    problem, sampled = as_argument(training.reweighted), as_argument(training.sampled)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), work.adjoint())

    def forward(steps: int) -> Any:
        return compiled.forward(problem, eta, state, work.segment(steps))

    saved = forward(MORE).saved

    def backward(steps: int) -> Any:
        adjoint = jax.tree.map(jnp.copy, zeros)
        return compiled.pullback(problem, eta, work.segment(steps), (state, saved), adjoint)

    def train(steps: int) -> Any:
        copy = jax.tree.map(jnp.copy, state)
        return compiled.train(sampled, eta, copy, work.sampled(steps))

    return _line(forward, work), _line(backward, work), _line(train, work)


def _line(run: Callable[[int], Any], work: Work) -> Line:
    most = min(MORE, work.estimator.segment, work.recipe.inner.steps)
    few, more = (_seconds(lambda steps=steps: run(steps)) for steps in (FEW, most))
    if most == FEW:
        return Line(0.0, few)
    step = max(0.0, (more - few) / (most - FEW))
    return Line(max(0.0, few - FEW * step), step)


def _batches(work: Work, compiled: Compiled) -> tuple[float, float]:
    """Of the objective with its gradient, and of a judge's held-out batch."""
    training, outer = work.training, work.recipe.outer
    params = training.initialise(jax.random.key(0)).params
    problem, sampled = as_argument(training.reweighted), as_argument(training.sampled)
    (batch, *_), (judged, *_) = (
        work.held_out(sequences) for sequences in (outer.objective.sequences, outer.judge.sequences)
    )
    return (
        _seconds(lambda: compiled.objective(problem, params, batch)),
        _seconds(lambda: compiled.evaluate(sampled, params, judged)),
    )


def _seconds(run: Callable[[], Any]) -> float:
    """The least of a few runs, after one that isn't counted."""
    jax.block_until_ready(run())
    took = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        jax.block_until_ready(run())
        took.append(time.perf_counter() - began)
    return min(took)
