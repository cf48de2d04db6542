#!/usr/bin/env python3
"""What a hypergradient costs, in plain training steps per inner step, and what of it is watching.

A plain training step is gradient and optimizer update of the same model, nothing rematerialised,
in a loop of the same length, compiled the same way. Times are the smallest of several runs taken
in turn, so that a slow moment of the machine hits all alike. The norms that tell of growth are left
out of one row, and the median of that row's ratios to the one before is what they cost.

usage: bench_hypergradient.py [RECIPE] [KEY.PATH=VALUE]... [--rounds N]
"""

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp

from metatune.data import heldout_batches, stratified_batches
from metatune.fit.process.allocation import keep_memory
from metatune.hypergrad import MixFlow, Reverse, hypergradient, train
from metatune.hypergrad.reverse import growth
from metatune.inner import InnerTraining, prepare
from metatune.recipe import reading, schema, shipped

WATCHED, UNWATCHED = "mixflow", "mixflow, growth unseen"


def with_remat(recipe: schema.Recipe, remat: bool) -> InnerTraining:
    return prepare(
        dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, remat=remat))
    )


def runs(recipe: schema.Recipe, segment: int) -> dict[str, Callable[[], Any]]:
    """What is timed, by name; the plain training comes first."""
    plain, remat = with_remat(recipe, False), with_remat(recipe, True)
    state = plain.initialise(jax.random.key(0))
    objective = recipe.outer.objective
    eta, steps = plain.initial_eta(), recipe.inner.steps
    drawn = stratified_batches(
        plain.corpus,
        seed=(0,),
        batch_size=recipe.data.batch_size,
        shares=plain.trajectory(eta).mixture,
    )
    batches = [jax.tree.map(jax.numpy.asarray, drawn(step)) for step in range(steps)]
    held_out = heldout_batches(
        plain.corpus,
        "validation",
        seed=(1,),
        sequences=objective.sequences,
        micro_batch=min(objective.micro_batch, objective.sequences),
    )

    def training() -> Any:
        problem = plain.reweighted
        return train(problem, eta, state, batches.__getitem__, steps=steps, segment=segment)

    def estimate(inner: InnerTraining, estimator: Any) -> Callable[[], Any]:
        return lambda: hypergradient(
            inner.reweighted,
            eta,
            state,
            batches.__getitem__,
            held_out,
            steps=steps,
            estimator=estimator,
        )

    def unwatched() -> Any:
        nothing = jnp.zeros(())
        with mock.patch.object(growth, "_norms", lambda adjoint, trainings: (nothing, nothing)):
            return watched()

    watched = estimate(plain, MixFlow(segment))
    return {
        "plain training": training,
        WATCHED: watched,
        UNWATCHED: unwatched,
        "mixflow, gradients recomputed": estimate(plain, MixFlow(segment, save_gradients=False)),
        "mixflow, block remat": estimate(remat, MixFlow(segment)),
        "reverse, step remat": estimate(plain, Reverse(segment)),
        "reverse, step and block remat": estimate(remat, Reverse(segment)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("recipe", nargs="?", default="quickstart")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    keep_memory()
    recipe = reading.read(shipped.find(given.recipe), given.overrides)
    if recipe.trainer is not None:
        parser.error("an external trainer has no hypergradient of ours")
    timed = runs(recipe, recipe.outer.estimator.segment)
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    first = {}
    for name, run in timed.items():
        began = time.perf_counter()
        jax.block_until_ready(run())
        first[name] = time.perf_counter() - began
    for _ in range(given.rounds):
        for name, run in timed.items():
            began = time.perf_counter()
            jax.block_until_ready(run())
            seconds[name].append(time.perf_counter() - began)
    best = {name: min(each) for name, each in seconds.items()}
    unit, *_ = best.values()
    per_step = unit / recipe.inner.steps * 1e3
    print(f"{given.recipe}: {recipe.inner.steps} inner steps, {per_step:.2f} ms each")
    print(f"{'':32} {'seconds':>8} {'plain steps per inner step':>28} {'first call, s':>14}")
    for name, least in best.items():
        print(f"{name:32} {least:8.3f} {least / unit:28.2f} {first[name]:14.1f}")
    pairs = zip(seconds[WATCHED], seconds[UNWATCHED], strict=True)
    ratios = sorted(one / other for one, other in pairs)
    low, high = ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]
    print(
        f"growth seen over unseen: {statistics.median(ratios):.4f} in the median of "
        f"{len(ratios)} pairs, half of them {low:.4f} to {high:.4f}"
    )


if __name__ == "__main__":
    main()
