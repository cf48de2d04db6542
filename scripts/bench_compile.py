#!/usr/bin/env python3
"""What compiling costs: of one hypergradient by model size, and of a whole fit, cold and again.

A fit runs twice, each in a process of its own, from a compilation cache that is empty at first.
Its sizes of batch and sequence are small, because compiling doesn't depend on them and the steps
do; its number of inner steps is 2, because compiling doesn't depend on that either.

usage: bench_compile.py [--size SIZE ...] [--recipe RECIPE] [--set KEY.PATH=VALUE ...]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import jax
import jax.monitoring

from metatune.bench.memory import compile_hypergradient, compile_plain_step
from metatune.bench.sizes import SIZES
from metatune.bench.variants import VARIANTS

VARIANT = "mixflow+remat+chunks+saved"
STAGES = {
    "/jax/core/compile/jaxpr_trace_duration": "tracing",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lowering",
    "/jax/core/compile/backend_compile_duration": "compiling or loading",
}
HIT = "/jax/compilation_cache/cache_hits"
ASKED = "/jax/compilation_cache/compile_requests_use_cache"


def fit_once(recipe: str, overrides: list[str], out: str) -> None:
    """Fits in this process and prints what compiling took, as JSON."""
    from metatune.cli.commands import app

    spent = dict.fromkeys(STAGES.values(), 0.0)
    counts: Counter[str] = Counter()

    def on_duration(event: str, duration_secs: float, **_: object) -> None:
        if event in STAGES:
            spent[STAGES[event]] += duration_secs

    def on_event(event: str, **_: object) -> None:
        counts[event] += 1

    jax.monitoring.register_event_duration_secs_listener(on_duration)
    jax.monitoring.register_event_listener(on_event)
    began = time.perf_counter()
    app(["fit", recipe, *overrides, "--out", out], standalone_mode=False)
    wall = time.perf_counter() - began
    print()
    print(json.dumps({**spent, "programs": counts[ASKED], "found": counts[HIT], "wall": wall}))


def fits(recipe: str, overrides: list[str]) -> None:
    """Fits twice from an empty cache."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": f"{folder}/compiled"}
        for run in ("empty cache", "same again"):
            out = Path(folder) / run.replace(" ", "-")
            command = [sys.executable, __file__, "--in-process", str(out), "--recipe", recipe]
            done = subprocess.run(
                [*command, "--set", *overrides],
                env=environment,
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            seen = json.loads(done.stdout.splitlines()[-1])
            stages = ", ".join(f"{name} {seen[name]:.1f} s" for name in STAGES.values())
            print(
                f"{run}: {stages}; {seen['found']} of {seen['programs']} programs found in the "
                f"cache; {seen['wall']:.0f} s in all",
                flush=True,
            )


def main() -> None:
    """Reads the command line and prints what it measures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", nargs="*", default=["46.9M"], choices=[*SIZES])
    parser.add_argument("--recipe", default="quickstart")
    parser.add_argument("--set", nargs="*", default=[])
    parser.add_argument("--in-process", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.in_process:
        fit_once(given.recipe, given.set, given.in_process)
        return
    for size in given.size:
        hypergradient = compile_hypergradient(SIZES[size], VARIANTS[VARIANT]).compile_seconds
        plain = compile_plain_step(SIZES[size]).compile_seconds
        print(f"{size}, {VARIANT}: {hypergradient:.1f} s; a plain step: {plain:.1f} s", flush=True)
    fits(given.recipe, given.set)


if __name__ == "__main__":
    main()
