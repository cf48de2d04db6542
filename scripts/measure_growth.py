#!/usr/bin/env python3
"""Which windows `outer.signal` takes for dominated by growth, at the recipes' own values.

For each shipped recipe that needs no download and goes back through whole trainings, and each seed:
one hypergradient at point 0, and how many times its least the adjoint behind each window is. Where
nothing is wrong nothing should be named. The last lines are of trainings that are chaotic: the
quickstart at a learning rate of 0.1 and 0.3, and a Llama of 128 x 6 layers over 200 steps at 1e-3.

Each line is written to OUT (JSON lines) as soon as it is there, and not measured again.

usage: measure_growth.py OUT [--seeds 3] [RECIPE ...]
"""

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from measure_check import available

from metatune import plan as plans
from metatune.fit.process.compilation import keep_compiled
from metatune.fit.searching.hypergradients import source
from metatune.fit.searching.phases import begin
from metatune.fit.searching.truncation import next_span
from metatune.inner import prepare_file
from metatune.recipe import schema, shipped
from metatune.recipe.phases import resolved
from metatune.tunables.blocks import blocks, growths

LIMIT = schema.SignalSpec().growth
LLAMA = (
    "model.config={model_type: llama, hidden_size: 128, intermediate_size: 384, "
    "num_hidden_layers: 6, num_attention_heads: 4}",
    "data.domains={code: {shipped: code_stdlib}, drama: {shipped: drama_shakespeare}}",
    "data.sequence_length=128",
    "data.batch_size=4",
    "inner.steps=200",
    "inner.optimizer={kind: adamw, learning_rate: 1e-3, schedule: {kind: cosine, warmup: 0.1}}",
    "tune={learning_rates: {per: kind, windows: 4}, mixture: {windows: 4}}",
    "outer.objective={sequences: 64, micro_batch: 16}",
)
CHAOTIC = (
    ("inner.optimizer.learning_rate=0.1",),
    ("inner.optimizer.learning_rate=0.3",),
    LLAMA,
)


def measure(name: str, overrides: tuple[str, ...]) -> dict[str, Any] | None:
    """The growth by window; None of a recipe that has no adjoint, or none of whole trainings."""
    training = prepare_file(shipped.find(name), overrides)
    with tempfile.TemporaryDirectory() as scratch:
        training, _ = plans.decided(training, folder=Path(scratch))
        phase = resolved(training.recipe.outer)[0]
        backward = isinstance(phase.estimator, schema.MixFlowSpec | schema.ReverseSpec)
        if not backward or isinstance(phase.unroll, schema.OnlineSpec):
            return None
        search = begin(training, phase, training.initial_eta())
        span = next_span(training.recipe, phase, search)
        estimate = source(training, Path(scratch), lambda: lambda heard: None)(search, phase, span)
    found, growth = blocks(training.tunables), estimate.diagnostics.growth
    assert growth is not None
    times = np.minimum(growths(growth, found, span.steps), 1e30)
    return {f"{each.key} {each.window}": float(t) for each, t in zip(found, times, strict=True)}


def main() -> None:
    """Measures what isn't in OUT, then prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("recipes", nargs="*")
    given = parser.parse_args()
    out = given.out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    os.chdir(out.parent)
    keep_compiled()
    lines = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    known = {(line["recipe"], tuple(line["overrides"])): line for line in lines}
    cases = [
        (name, (f"seed={seed}",))
        for seed in range(given.seeds)
        for name in given.recipes or shipped.names()
        if available(name, out.parent)
    ]
    cases += [("quickstart", (*each, "seed=0")) for each in CHAOTIC]
    for name, overrides in cases:
        if (name, overrides) in known:
            continue
        line = {"recipe": name, "overrides": overrides, "growth": measure(name, overrides)}
        known[name, overrides] = line
        with out.open("a") as file:
            file.write(json.dumps(line) + "\n")
    print(
        "| recipe | changes | largest growth | windows above the limit |\n| --- | --- | --- | --- |"
    )
    for (name, overrides), line in known.items():
        growth = line["growth"]
        if growth is None:
            continue
        named = [window for window, times in growth.items() if times >= LIMIT]
        changes = " ".join(overrides) if len(overrides) < 3 else f"Llama 128 x 6, {overrides[-1]}"
        most = f"{max(growth.values()):.3g}" if growth else "nothing windowed"
        print(f"| {name} | {changes} | {most} | {', '.join(named) or 'none'} |")


if __name__ == "__main__":
    main()
