#!/usr/bin/env python3
"""What a learning rate for each element costs, beside one for each tensor: time and memory.

Every measurement is of a process of its own: of hypergradients (MixFlow) of the same training, its
windows as many. Times are CPU seconds of a hypergradient after the first, which compiles, the
smallest of several, the two kinds in turn; so another program that runs meanwhile matters little.
Memory is XLA's own plan of the program that needs most, with what it is given, and the peak
resident set above that of a process that has everything but the hypergradient.

usage: bench_elementwise.py [--rounds N] [--windows W] [--steps T]
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax

from metatune.data import heldout_batches, stratified_batches
from metatune.fit.process.allocation import keep_memory
from metatune.hypergrad import MixFlow, hypergradient
from metatune.inner import InnerTraining, prepare
from metatune.plan import cost_model
from metatune.recipe import schema

KINDS = ("tensor", "element")
SEGMENT = 8


def recipe(per: Any, windows: int, steps: int) -> schema.Recipe:
    """A model of a million parameters."""
    return schema.Recipe(
        model=schema.ModelSpec(
            config={
                "model_type": "llama",
                "hidden_size": 128,
                "intermediate_size": 384,
                "num_hidden_layers": 5,
                "num_attention_heads": 4,
            },
            remat=True,
        ),
        data=schema.DataSpec(
            domains={"code": schema.SourceSpec(shipped="code_stdlib")},
            target={"code": 1.0},
            sequence_length=128,
            batch_size=8,
        ),
        inner=schema.InnerSpec(schema.AdamWSpec(learning_rate=1e-3), steps=steps),
        tune=schema.TuneSpec(learning_rates=schema.LearningRatesSpec(per=per, windows=windows)),
        outer=schema.OuterSpec(
            steps=1,
            estimator=schema.MixFlowSpec(segment=SEGMENT),
            objective=schema.ObjectiveSpec(sequences=8, micro_batch=8),
        ),
    )


def measured(given: argparse.Namespace) -> dict[str, float]:
    """Of one kind, in this process."""
    keep_memory()
    training = prepare(recipe(given.only, given.windows, given.steps))
    eta = training.initial_eta()
    state = training.initialise(jax.random.key(0))
    shares = training.trajectory(eta).mixture
    drawn = stratified_batches(
        training.corpus, seed=(0,), batch_size=training.recipe.data.batch_size, shares=shares
    )
    batches = [drawn(step) for step in range(given.steps)]
    held_out = heldout_batches(training.corpus, "validation", seed=(1,), sequences=8, micro_batch=8)
    before = peak_bytes()
    seconds = []
    for _ in range(given.rounds + 1):
        began = time.process_time()
        found = hypergradient(
            training.reweighted,
            eta,
            state,
            batches.__getitem__,
            held_out,
            steps=given.steps,
            estimator=MixFlow(SEGMENT),
        )
        jax.block_until_ready(found.gradient)
        seconds.append(time.process_time() - began)
    resident = peak_bytes()
    return {
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        "meta_parameters": sum(leaf.size for leaf in jax.tree.leaves(eta)),
        "seconds": min(seconds[1:]),
        "resident": resident,
        "above": resident - before,
        "planned": planned_bytes(training),
    }


def peak_bytes() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def planned_bytes(training: InnerTraining) -> int:
    """Of the estimator, as `metatune plan` predicts it from what XLA compiles."""
    with TemporaryDirectory() as folder:
        estimator = training.recipe.outer.estimator
        memory = cost_model.cost(training, estimator, Path(folder)).memory
    return memory.device + memory.host


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--windows", type=int, default=1)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--only", choices=KINDS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only:
        print(json.dumps(measured(given)))
        return
    runs: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    for _ in range(given.repeats):
        for kind in KINDS:
            command = [sys.executable, __file__, *sys.argv[1:], "--only", kind]
            done = subprocess.run(command, check=True, capture_output=True, env=os.environ)
            runs[kind].append(json.loads(done.stdout.splitlines()[-1]))
    best = {
        kind: {key: min(run[key] for run in found) for key in found[0]}
        for kind, found in runs.items()
    }
    print(f"{best['tensor']['parameters']:,.0f} parameters, {given.windows} windows")
    print(f"{'':26} {'per tensor':>14} {'per element':>14} {'ratio':>7}")
    for key, unit, words in (
        ("meta_parameters", 1, "meta-parameters"),
        ("seconds", 1, "CPU seconds"),
        ("planned", 2**20, "planned, MiB"),
        ("resident", 2**20, "peak resident, MiB"),
        ("above", 2**20, "of it above the rest, MiB"),
    ):
        tensor, element = (best[kind][key] / unit for kind in KINDS)
        print(f"{words:26} {tensor:14,.2f} {element:14,.2f} {element / tensor:7.2f}")


if __name__ == "__main__":
    main()
