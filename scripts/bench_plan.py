#!/usr/bin/env python3
"""What `metatune plan` predicts against what a hypergradient takes: bytes and seconds.

Each case runs in two processes, once to compile. One then gives back all that is free, and runs
again for the peak of its resident memory above the rest. The other keeps what was freed, as
`metatune fit` does, for its time; its peak is up to a third higher, as kept blocks have holes.
`--plan N` runs `metatune plan` N times instead, each as a process of its own with an empty cache
(`--kept`: with that of the run before), and tells its seconds on the wall and of the processor, and
its pick; `--busy` keeps another process at work beside it. Needs Linux.

usage: bench_plan.py [CASE ...] [--units bytes|seconds ...] [--json FILE]
       bench_plan.py [CASE ...] --plan N [--busy] [--kept]
"""

import argparse
import gc
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import jax

from metatune import plan
from metatune.data import heldout_batches, stratified_batches
from metatune.fit.process.allocation import keep_memory, release_memory
from metatune.fit.process.compilation import keep_compiled
from metatune.hypergrad import hypergradient
from metatune.inner import estimators, prepare
from metatune.plan.table import duration, size
from metatune.recipe import reading, shipped

WORDS = {"bytes": size, "seconds": duration}
SMALL = ("inner.steps=48", "outer.objective={sequences: 32, micro_batch: 32}")
MIDDLE = (
    "model.config={model_type: llama, hidden_size: 256, intermediate_size: 704, "
    "num_hidden_layers: 6, num_attention_heads: 4, vocab_size: 1024}",
    "data.sequence_length=257",
    "data.batch_size=4",
    "inner.steps=8",
    "outer.estimator.segment=2",
    "outer.objective={sequences: 8, micro_batch: 4}",
)
TEN = (
    "model.config={model_type: llama, hidden_size: 256, intermediate_size: 768, "
    "num_hidden_layers: 10, num_attention_heads: 8}",
    "data.domains={code: {shipped: code_stdlib}, drama: {shipped: drama_shakespeare}}",
    "data.sequence_length=128",
    "data.batch_size=4",
    "inner.steps=200",
    "inner.optimizer={kind: adamw, learning_rate: 1e-3, schedule: {kind: cosine, warmup: 0.1}}",
    "tune={learning_rates: {per: kind, windows: 4}, mixture: {windows: 4, floor: 0.01}}",
)
GLOBAL = "tune={learning_rates: {per: global, windows: 5}}"
CASES = {
    "quickstart, 48 steps": SMALL,
    "quickstart, recomputed gradients": (*SMALL, "outer.estimator.save_gradients=false"),
    "quickstart, reverse": (*SMALL, "outer.estimator={kind: reverse}"),
    "quickstart, forward": (*SMALL, GLOBAL, "outer.estimator={kind: forward}"),
    "quickstart, forward gradient": (*SMALL, "outer.estimator={kind: forward_gradient}"),
    "quickstart, zeroth order": (*SMALL, "outer.estimator={kind: zeroth_order, directions: 2}"),
    "5M": MIDDLE,
    "5M, block remat": (*MIDDLE, "model.remat=true"),
    "5M, block remat, sqrt": (
        *MIDDLE,
        "model.remat=true",
        "inner.steps=16",
        "outer.estimator.checkpoints.keep=sqrt",
    ),
    "5M, block remat, host": (
        *MIDDLE,
        "model.remat=true",
        "outer.estimator.checkpoints.store=host",
    ),
    "5M, micro-batches": (*MIDDLE, "inner.micro_batch=1"),
    "5M, reverse": (*MIDDLE, "outer.estimator={kind: reverse, segment: 2}"),
}
LONG = {"quickstart": (), "10M": TEN}
"""Cases that are only run where they are named: a hypergradient of 10M takes eight minutes."""


def measure(overrides: tuple[str, ...], unit: str) -> dict[str, Any]:
    """One case in this process, `bytes` or `seconds` of it."""
    keep_compiled()
    if unit == "seconds":
        keep_memory()
    training = prepare(reading.read(shipped.find("quickstart"), overrides))
    recipe = training.recipe
    objective = recipe.outer.objective
    with tempfile.TemporaryDirectory() as folder:
        memory, pace = plan.expected(training, folder=Path(folder))
        eta = training.initial_eta()
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
            micro_batch=objective.micro_batch,
        )

        def run() -> None:
            jax.block_until_ready(
                hypergradient(
                    training.reweighted,
                    eta,
                    training.initialise(jax.random.key(0)),
                    batches,
                    held_out,
                    steps=recipe.inner.steps,
                    estimator=estimators.build(recipe.outer.estimator),
                    checkpoints=estimators.checkpoints(recipe.outer.estimator, Path(folder)),
                    key=jax.random.key(1),
                ).gradient
            )

        run()
        if unit == "seconds":
            measured = min(_seconds(run) for _ in range(3))
            return {"expected_seconds": pace.hypergradient, "measured_seconds": measured}
        gc.collect()
        release_memory()
        Path("/proc/self/clear_refs").write_text("5")
        before = _resident("VmRSS")
        run()
        return {
            "expected_bytes": memory.device + memory.host,
            "measured_bytes": _resident("VmHWM") - before,
        }


def _seconds(run: Callable[[], None]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def planned(overrides: tuple[str, ...], cache: Path) -> dict[str, Any]:
    """A run of `metatune plan` as a process: what it took, and its pick."""
    where = {"METATUNE_CACHE": cache / "metatune", "JAX_COMPILATION_CACHE_DIR": cache / "jax"}
    environment = {**os.environ, **{name: str(path) for name, path in where.items()}}
    command = Path(sys.executable).with_name("metatune")
    program = (command, "plan", "quickstart", *overrides, "--json")
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(program, env=environment, stdout=subprocess.PIPE, check=True)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    own = json.loads(done.stdout)["alternatives"][0]["seconds"]
    return {
        "wall": wall,
        "processor": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "share": wall / own["outer_step"],
        "pick": json.loads(done.stdout)["pick"],
    }


def steady(name: str, count: int, *, busy: bool, kept: bool) -> None:
    """Prints what runs of `metatune plan` took, and their picks."""
    other = subprocess.Popen((sys.executable, "-c", "while True: pass")) if busy else None
    try:
        with tempfile.TemporaryDirectory() as folder:
            for number in range(count):
                found = planned((CASES | LONG)[name], Path(folder) / ("" if kept else str(number)))
                print(
                    f"{name}, {number + 1} of {count}: {found['wall']:.1f} s on the wall, "
                    f"{found['processor']:.1f} s of the processor, {found['share']:.0%} of an "
                    f"outer step; {found['pick']}",
                    flush=True,
                )
    finally:
        if other:
            other.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("cases", nargs="*", default=list(CASES))
    parser.add_argument("--units", nargs="+", choices=WORDS, default=list(WORDS))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plan", type=int, metavar="N")
    parser.add_argument("--busy", action="store_true")
    parser.add_argument("--kept", action="store_true")
    given = parser.parse_args()
    if given.plan:
        for name in given.cases:
            steady(name, given.plan, busy=given.busy, kept=given.kept)
        return
    rows = {}
    print("| |" + " expected | measured | |" * len(given.units))
    print("|---|" + "---|---|---|" * len(given.units))
    for name in given.cases:
        row: dict[str, Any] = {}
        cells = [name]
        for unit in given.units:
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
                row |= process.submit(measure, (CASES | LONG)[name], unit).result()
            expected, measured = row[f"expected_{unit}"], row[f"measured_{unit}"]
            words = WORDS[unit]
            cells += [words(expected), words(measured), f"{expected / measured - 1:+.0%}"]
        rows[name] = row
        print(f"| {' | '.join(cells)} |", flush=True)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
