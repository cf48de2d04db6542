"""Seconds of an outer step and of a run, from those of a hypergradient, by counting."""

from typing import NamedTuple

import numpy as np

from metatune.inner.choosing import why_not
from metatune.plan.cost import OF_GRADIENT, Seconds
from metatune.plan.timing import Line
from metatune.plan.work import Work
from metatune.recipe import phases
from metatune.recipe.schema import OnlineSpec, OuterSpec, SignalSpec
from metatune.tunables.blocks import blocks


class Pace(NamedTuple):
    """Seconds.

    Attributes:
        hypergradient: of one.
        judging: of a judgement.
        outer_step: of an outer step, judging shared out.
        run: of the whole run, compilation and the report included.
        compilation: of all programs.
        rounds: of a hypergradient by round of the timings; rounds of ways that were timed together,
            or counted from each other, belong together.
        differences: of whole trainings, which an outer step takes beside the rest where growth
            dominates the hypergradient, at most; in no other number here.
        choice: of an outer step beside the rest, in the mean, at most, where growth dominates and
            what is followed is chosen by measuring, differences included; likewise.
    """

    hypergradient: float
    judging: float
    outer_step: float
    run: float
    compilation: float
    rounds: tuple[float, ...] = ()
    differences: float = 0.0
    choice: float = 0.0

    @property
    def quartiles(self) -> tuple[float, ...]:
        """Least, lower quartile, median and upper quartile of the rounds."""
        rounds = self.rounds or (self.hypergradient,)
        return tuple(float(at) for at in np.quantile(rounds, [0, 0.25, 0.5, 0.75]))


def pace(work: Work, best: Seconds, rounds: tuple[float, ...], compilation: float) -> Pace:
    """Of a run, from what a hypergradient takes.

    Args:
        work: the training and its estimator.
        best: what is predicted from the least timings.
        rounds: seconds of a hypergradient by round.
        compilation: seconds of the programs of a hypergradient.
    """
    recipe, outer = work.recipe, work.recipe.outer

    def trainings(count: int, sequences: int, line: Line = best.training) -> float:
        measured = OF_GRADIENT * work.gradients(sequences) * line.step
        return count * (line.of(recipe.inner.steps, work.estimator.segment) + measured)

    candidates = 1 if outer.ema is None else 2
    judgement = trainings(candidates * outer.validation.seeds, outer.validation.sequences)
    outer_step = best.hypergradient + judgement / outer.validation.every
    report = trainings(2 * outer.test.seeds, outer.test.sequences, best.own or best.training)
    outer_steps = sum(phase.steps for phase in phases.resolved(outer))
    run = compilation + outer_steps * outer_step + judgement + report
    differences = trainings(_differences(work), outer.objective.sequences)
    choice = _choice(outer) * best.hypergradient
    return Pace(
        *(best.hypergradient, judgement, outer_step, run, compilation, rounds, differences, choice)
    )


def _choice(outer: OuterSpec) -> float:
    """Hypergradients that a choice by measuring may take for each of the plain ones."""
    if outer.signal == "off":
        return 0.0
    spec = SignalSpec() if outer.signal == "auto" else outer.signal
    able = [not why_not(outer, phase, spec, phase.steps) for phase in phases.resolved(outer)]
    return spec.cost - 1 if any(able) else 0.0


def _differences(work: Work) -> int:
    """Trainings that differences take in an outer step at most."""
    outer = work.recipe.outer
    watched = work.estimator.backward and not isinstance(outer.unroll, OnlineSpec)
    if outer.signal == "off" or not watched:
        return 0
    spec = SignalSpec() if outer.signal == "auto" else outer.signal
    members = spec.seeds if outer.fresh.initialisation or outer.fresh.data else 1
    if outer.population:
        members = outer.population.members
    if outer.robust:  # of each size one, whose seconds are those of all sizes
        members = outer.robust.seeds
    return 2 * min(spec.pairs, len(blocks(work.training.tunables))) * members
