"""What a hypergradient by persistent evolution strategies costs: a window of pairs that live on."""

from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

from metatune.hypergrad import shortened
from metatune.hypergrad.stores import device_bytes
from metatune.inner import InnerTraining, estimators
from metatune.plan.compiling import Analyse, analysed, compilation_seconds
from metatune.plan.cost import OF_GRADIENT, Cost, Seconds
from metatune.plan.progress import Tell
from metatune.plan.timing import Lines
from metatune.plan.work import Work, horizon
from metatune.plan.zeroth_order import (
    EACH,
    ONE,
    compiled_for,
    measuring_bytes,
    memory_of,
    probes,
)
from metatune.recipe import schema


def cost(
    training: InnerTraining,
    spec: schema.PersistentESSpec,
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
    at_a_time = 2 * min(spec.chunk, spec.pairs)
    compiled = compiled_for(work, at_a_time, tell, analyse)
    # Of all pairs the states before the window and, chunk by chunk, those after it, which are put
    # together in the end.
    one = device_bytes(work.state())
    all_pairs = 2 * spec.pairs * one
    phases = [
        (2 * all_pairs + one, compiled[EACH].temporary),
        (2 * all_pairs + one, measuring_bytes(work, compiled, at_a_time)),
        (3 * all_pairs + one, 0),
    ]
    chunks = ceil(spec.pairs / spec.chunk)
    job, length = work.job(), work.estimator.segment
    cuts = job.bounds(job.first, job.stop, length)
    values = OF_GRADIENT * work.objective_gradients()

    def seconds(lines: Lines) -> Seconds:
        each = lines[EACH]
        return Seconds(chunks * (each.over(cuts) + values * each.step), lines[ONE])

    return Cost(
        memory_of(work, at_a_time, phases),
        compilation_seconds(compiled.values()),
        partial(probes, work, compiled, at_a_time),
        seconds,
    )
