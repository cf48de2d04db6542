#!/usr/bin/env python3
"""What this build takes beside another one: a hypergradient, or a whole `metatune fit`.

Runs both checkouts in turn, each in a process and environment of its own, and prints the median
of the ratios, with quartiles. Of a hypergradient: of MixFlow's and of a plain training, as each
build's `bench_hypergradient.py` makes them, the smallest of several rounds. Of a fit: of processor
seconds and of those by the clock, with what each came to on the test split; `--own` changes this
build's recipe.

usage: bench_builds.py OTHER_CHECKOUT [--pairs N] [--rounds N] [--recipe RECIPE]
       bench_builds.py OTHER_CHECKOUT --fit [--pairs N] [--recipe RECIPE] [--own KEY.PATH=VALUE]...

The other checkout has a `.venv` that its metatune is installed in.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

ROWS = ("plain training", "mixflow")
MEASURE = f"""
import json, sys, time
sys.path.insert(0, "scripts")
import bench_hypergradient as bench, jax
bench.keep_memory()
recipe = bench.reading.read(bench.shipped.find(sys.argv[1]), [])
timed = bench.runs(recipe, recipe.outer.estimator.segment)
best = dict.fromkeys({ROWS}, float("inf"))
for round in range(1 + int(sys.argv[2])):
    for name in best:
        began = time.perf_counter()
        jax.block_until_ready(timed[name]())
        if round:  # the first compiles
            best[name] = min(best[name], time.perf_counter() - began)
print(json.dumps(best))
"""
"""Run within a checkout; both builds have the names that it uses."""


def ran(checkout: Path, *command: str | Path) -> str:
    """What a command of a checkout prints.

    Raises:
        SystemExit: it failed.
    """
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{checkout}: {command} ended with {done.returncode}\n{done.stderr}")
    return done.stdout


def of_hypergradient(checkout: Path, recipe: str, rounds: int) -> dict[str, float]:
    """Seconds of each of `ROWS`."""
    python = checkout / ".venv/bin/python"
    return json.loads(ran(checkout, python, "-c", MEASURE, recipe, str(rounds)).splitlines()[-1])


def of_fit(checkout: Path, recipe: str, changes: list[str]) -> dict[str, float]:
    """Seconds of a whole fit, by the processor and by the clock; prints what it came to."""
    with tempfile.TemporaryDirectory() as folder:
        out, before, began = Path(folder, "run"), os.times(), time.monotonic()
        command = checkout / ".venv/bin/metatune"
        ran(checkout, command, "fit", recipe, *changes, "--out", str(out))
        wall, after = time.monotonic() - began, os.times()
        result: dict[str, Any] = json.loads((out / "artefact/tuned.json").read_text())["result"]
    losses = result["after"]
    error = statistics.stdev(losses) / len(losses) ** 0.5
    print(
        f"  {checkout}: {statistics.fmean(losses):.4f} ± {error:.4f} on the test split", flush=True
    )
    used = after.children_user + after.children_system
    return {"processor": used - before.children_user - before.children_system, "clock": wall}


def main() -> None:
    """Measures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("other", type=Path)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--recipe", default="quickstart")
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--own", action="append", default=[], metavar="KEY.PATH=VALUE")
    given = parser.parse_args()
    own = Path(__file__).resolve().parents[1]
    ratios: dict[str, list[float]] = {}

    def seconds(checkout: Path) -> dict[str, float]:
        if not given.fit:
            return of_hypergradient(checkout, given.recipe, given.rounds)
        return of_fit(checkout, given.recipe, given.own if checkout == own else [])

    for pair in range(given.pairs):
        both = [own, given.other.resolve()]
        found = {each: seconds(each) for each in (both if pair % 2 else both[::-1])}
        mine, theirs = (found[each] for each in both)
        for name in sorted(mine.keys() & theirs.keys()):
            ratios.setdefault(name, []).append(mine[name] / theirs[name])
            last = f"{mine[name]:.2f} s over {theirs[name]:.2f} s"
            print(f"pair {pair + 1}, {name}: {ratios[name][-1]:.3f} ({last})", flush=True)
    for name, each in ratios.items():
        low, _, high = statistics.quantiles(each, n=4) if len(each) > 1 else (each[0],) * 3
        print(f"{name:32} {statistics.median(each):.3f}, quartiles {low:.3f} to {high:.3f}")


if __name__ == "__main__":
    main()
