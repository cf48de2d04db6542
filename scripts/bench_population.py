#!/usr/bin/env python3
"""What a population costs beside one training, and by how much its mean errs less.

Each cost is measured in a process of its own: the least processor time of hypergradients of the
quickstart after one that compiles, and the bytes that `metatune plan` predicts. The spread is that
of means over disjoint groups of members, all with the same held-out text, over the norm of the mean
of all.

usage: bench_population.py [--steps N] [--members M] [--seeds K]
"""

import argparse
import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from metatune import plan
from metatune.data import heldout_batches, stratified_batches
from metatune.fit.process.compilation import keep_compiled
from metatune.fit.searching import population
from metatune.fit.searching.phases import begin
from metatune.fit.searching.truncation import next_span
from metatune.hypergrad import Hypergradient, hypergradient, hypergradients
from metatune.inner import InnerTraining, estimators, prepare
from metatune.inner.seeds import Purpose, Stream, data_seed
from metatune.plan.table import size
from metatune.recipe import reading, shipped
from metatune.recipe.phases import resolved
from metatune.recipe.schema import PopulationSpec

ROUNDS = 3


def training_of(steps: int) -> InnerTraining:
    return prepare(reading.read(shipped.find("quickstart"), (f"inner.steps={steps}",)))


def of_members(training: InnerTraining, count: int, vmap: bool) -> Hypergradient:
    """The hypergradients of the first outer step; of a single member without a population."""
    recipe = training.recipe
    recipe = replace(
        recipe, outer=replace(recipe.outer, population=PopulationSpec(count, vmap=vmap))
    )
    training = replace(training, recipe=recipe)
    (phase,) = resolved(recipe.outer)
    search = begin(training, phase, training.initial_eta())
    shares = training.trajectory(search.eta).mixture

    def batches(number: int, member: int) -> Any:
        seed = data_seed(recipe.seed, Purpose.HYPERGRADIENT, number, Stream.TRAINING, member)
        return stratified_batches(
            training.corpus, seed=seed, batch_size=recipe.data.batch_size, shares=shares
        )

    sequences = recipe.outer.objective.sequences
    held_out = heldout_batches(
        training.corpus, "validation", seed=(0,), sequences=sequences, micro_batch=sequences
    )
    part = next_span(recipe, phase, search)
    members = population.members(training, phase, search, part, batches)
    problem, eta = training.reweighted, search.eta
    options: dict[str, Any] = {
        "steps": part.steps,
        "estimator": estimators.build(phase.estimator),
    }
    if count == 1:
        (one,) = members
        return hypergradient(problem, eta, one.begin(), one.batches, held_out, **options)
    return hypergradients(problem, eta, members, held_out, vmap=vmap, states=False, **options)


def cost(steps: int, count: int, vmap: bool) -> tuple[float, int]:
    """Processor seconds of a hypergradient of `count` members, and the bytes predicted."""
    keep_compiled()
    training = training_of(steps)
    took = []
    for _ in range(1 + ROUNDS):
        began = time.process_time()
        jax.block_until_ready(of_members(training, count, vmap).gradient)
        took.append(time.process_time() - began)
    wanted = PopulationSpec(count, vmap=vmap) if count > 1 else None
    outer = replace(training.recipe.outer, population=wanted)
    planned = replace(training, recipe=replace(training.recipe, outer=outer))
    with tempfile.TemporaryDirectory() as folder:
        memory, _ = plan.expected(planned, folder=Path(folder))
    return min(took[1:]), memory.device


def spreads(steps: int, seeds: int) -> dict[str, list[tuple[int, float]]]:
    """By tunable, of groups of 1, 2, 4, ... members."""
    found = of_members(training_of(steps), seeds, vmap=False).diagnostics.members
    rows = {}
    for key, leaf in found.items():
        gradients = np.asarray(leaf, np.float64).reshape(seeds, -1)
        rows[key] = []
        group = 1
        while seeds // group >= 4:
            means = gradients[: seeds // group * group].reshape(-1, group, gradients.shape[1])
            spread = np.sqrt(means.mean(1).var(0, ddof=1).sum())
            rows[key].append((group, spread / np.linalg.norm(gradients.mean(0))))
            group *= 2
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=20, help="inner steps")
    parser.add_argument("--members", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=64, help="members that the spread is of")
    given = parser.parse_args()
    print("| members | way | processor seconds | a member | planned |")
    print("|---|---|---|---|---|")
    for count, vmap in ((1, False), (given.members, False), (given.members, True)):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            seconds, needed = process.submit(cost, given.steps, count, vmap).result()
        way = "no population" if count == 1 else "one program" if vmap else "one by one"
        each = seconds / count
        print(f"| {count} | {way} | {seconds:.2f} | {each:.2f} | {size(needed)} |", flush=True)
    print(
        "\n| members | tunable | relative spread of the mean | times √members |\n|---|---|---|---|"
    )
    for key, rows in spreads(given.steps, given.seeds).items():
        for group, spread in rows:
            print(f"| {group} | {key} | {spread:.3f} | {spread * group**0.5:.3f} |", flush=True)


if __name__ == "__main__":
    main()
