"""Seconds of an outer step and of a run: a few steps measured, the rest by counting."""

import time
from collections.abc import Callable, Sequence
from math import ceil
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp

from metatune.hypergrad import as_argument
from metatune.plan.work import Judging, Work
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

    def over(self, cuts: Sequence[tuple[int, int]]) -> float:
        """Of segments, each from an inner step up to another."""
        return sum(self.segment + (stop - start) * self.step for start, stop in cuts)


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


def pace(work: Work, hypergradient: float, judging: Judging, compilation: float) -> Pace:
    """Of a run, from what a hypergradient takes, and a few measured steps of a judge.

    Args:
        work: the training and its estimator.
        hypergradient: seconds of one.
        judging: what a judge runs.
        compilation: seconds of the programs of a hypergradient.
    """
    recipe, outer, training = work.recipe, work.recipe.outer, work.training
    eta, state = training.initial_eta(), training.initialise(jax.random.key(0))
    sampled = as_argument(training.sampled)

    def train(steps: int) -> Any:
        return judging.train(sampled, eta, jax.tree.map(jnp.copy, state), work.sampled(steps))

    steps = line(train, work)
    judged = work.held_out(outer.judge.sequences)[0]
    evaluation = seconds(lambda: judging.evaluate(sampled, state.params, judged))

    def trainings(count: int, sequences: int) -> float:
        measured = len(work.held_out(sequences)) * evaluation
        return count * (steps.of(recipe.inner.steps, work.estimator.segment) + measured)

    compilation += judging.compilation
    candidates = 1 if outer.ema is None else 2
    judgement = trainings(candidates * outer.judge.seeds, outer.judge.sequences)
    outer_step = hypergradient + judgement / outer.judge.every
    report = trainings(2 * outer.report.seeds, outer.report.sequences)
    outer_steps = sum(phase.steps for phase in phases.resolved(outer))
    run = compilation + outer_steps * outer_step + judgement + report
    return Pace(hypergradient, judgement, outer_step, run, compilation)


def line(run: Callable[[int], Any], work: Work) -> Line:
    """Measures two stretches; `run` takes a number of inner steps, of a segment at most."""
    most = min(MORE, work.estimator.segment, work.recipe.inner.steps)
    few, more = (seconds(lambda steps=steps: run(steps)) for steps in (FEW, most))
    if most == FEW:
        return Line(0.0, few)
    step = max(0.0, (more - few) / (most - FEW))
    return Line(max(0.0, few - FEW * step), step)


def seconds(run: Callable[[], Any]) -> float:
    """The least of a few runs, after one that isn't counted."""
    jax.block_until_ready(run())
    took = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        jax.block_until_ready(run())
        took.append(time.perf_counter() - began)
    return min(took)
