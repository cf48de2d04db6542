#!/usr/bin/env python3
"""What forward mode costs: plain training steps per inner step, and peak memory, by horizon.

Runs the training of a recipe alone, then with the tangents of all its meta-parameters, once for
each horizon, each in a process of its own: memory is the most that the process ever had. A step
takes what it takes in the median segment; segments that compile don't count. CPU time (of all
threads) is the one to compare on a machine that does other work too. `active` meta-parameters have
begun: those of later windows aren't computed yet.

usage: bench_forward.py [STEPS ...] [--recipe RECIPE] [--set KEY.PATH=VALUE ...] [--segment K]
"""

import argparse
import multiprocessing
import resource
import statistics
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

import jax

from metatune.data import heldout_batches, stratified_batches
from metatune.fit.process.allocation import keep_memory
from metatune.hypergrad import Forward, Progress, hypergradient, train
from metatune.inner import prepare
from metatune.recipe import reading, shipped

MIB = 2**20
ALLOWED = 2.1
"""Plain steps for each active meta-parameter: twice the gradient, and the update."""


class Row(NamedTuple):
    """A step with so many tangents, in seconds by the wall and of all threads."""

    active: int
    steps: int
    wall: float
    cpu: float


class Stopwatch:
    """Listens, and takes the time of each segment."""

    def __init__(self, segment: int):
        """Begins now."""
        self.segment = segment
        self.taken: dict[int, list[tuple[float, float]]] = defaultdict(list)
        self.steps: dict[int, int] = defaultdict(int)
        self.last = (0, time.perf_counter(), time.process_time())

    def __call__(self, progress: Progress) -> None:
        step, wall, cpu = progress.step, time.perf_counter(), time.process_time()
        tangents = progress.carry and jax.block_until_ready(progress.carry.tangents)
        active = len(jax.tree.leaves(tangents)[0]) if tangents else 0
        before, *began = self.last
        self.steps[active] += step - before
        if step - before == self.segment:
            self.taken[active].append((wall - began[0], cpu - began[1]))
        self.last = (step, time.perf_counter(), time.process_time())

    def rows(self) -> list[Row]:
        """A row for each number of tangents."""
        rows = []
        for active, taken in sorted(self.taken.items()):
            # The first segment compiles, if there are others.
            wall, cpu = (
                statistics.median(clock) for clock in zip(*(taken[1:] or taken), strict=True)
            )
            rows.append(Row(active, self.steps[active], wall / self.segment, cpu / self.segment))
        return rows


def measure(given: argparse.Namespace, steps: int) -> tuple[Row, list[Row], int]:
    """One horizon, in this process: a plain step, steps with tangents, and the peak of memory."""
    keep_memory()
    recipe = reading.read(shipped.find(given.recipe), (*given.set, f"inner.steps={steps}"))
    training = prepare(recipe)
    eta, state = training.initial_eta(), training.initialise(jax.random.key(0))
    objective = recipe.outer.objective
    batches = stratified_batches(
        training.corpus,
        seed=(0,),
        batch_size=recipe.data.batch_size,
        shares=training.trajectory(eta).mixture,
    )
    held_out = heldout_batches(
        training.corpus,
        "validation",
        seed=(1,),
        sequences=objective.sequences,
        micro_batch=min(objective.micro_batch, objective.sequences),
    )
    plain, forward = Stopwatch(given.segment), Stopwatch(given.segment)
    common: dict[str, Any] = {"steps": min(steps, given.plain_steps), "segment": given.segment}
    train(training.reweighted, eta, state, batches, listener=plain, **common)
    result = hypergradient(
        training.reweighted,
        eta,
        state,
        batches,
        held_out,
        steps=steps,
        estimator=Forward(given.segment),
        listener=forward,
    )
    jax.block_until_ready(result)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return plain.rows()[0], forward.rows(), peak


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("steps", nargs="*", type=int, default=[100, 10_000])
    parser.add_argument("--recipe", default="quickstart")
    parser.add_argument("--set", nargs="*", default=["tune.learning_rates.per=global"])
    parser.add_argument("--segment", type=int, default=5)
    parser.add_argument("--plain-steps", type=int, default=200, help="of the training alone")
    given = parser.parse_args()
    print(f"{given.recipe} {' '.join(given.set)}; segments of {given.segment} steps")
    spawn, peaks = multiprocessing.get_context("spawn"), []
    for steps in given.steps:
        with ProcessPoolExecutor(1, mp_context=spawn) as process:
            plain, rows, peak = process.submit(measure, given, steps).result()
        peaks.append(peak)
        print(
            f"{steps} inner steps: {peak / MIB:.0f} MiB at the peak of the process; a plain step "
            f"{plain.wall * 1e3:.2f} ms, {plain.cpu * 1e3:.2f} ms of CPU\n"
            f"{'active':>8} {'ms a step':>10} {'plain steps':>12} {'by CPU time':>12} "
            f"{'allowed':>8}"
        )
        if not rows:
            parser.error(
                f"--segment {given.segment}: no stretch between two onsets is as long; lower it"
            )
        total = sum(row.steps for row in rows)
        mean = [
            sum(row.steps * row[column] for row in rows) / total
            for column in (Row._fields.index(name) for name in ("active", "wall", "cpu"))
        ]
        shown = [(row.active, row.wall, row.cpu) for row in rows]
        for active, wall, cpu in (*shown, mean):
            print(
                f"{active:8.1f} {wall * 1e3:10.2f} {wall / plain.wall:12.2f} "
                f"{cpu / plain.cpu:12.2f} {1 + ALLOWED * active:8.2f}",
                flush=True,
            )
    print(f"memory, last to first: {peaks[-1] / peaks[0]:.3f}")


if __name__ == "__main__":
    main()
