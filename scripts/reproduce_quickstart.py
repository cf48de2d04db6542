#!/usr/bin/env python3
"""The quickstart's tuned schedule against its default and twenty baselines, on unseen seeds.

Every row is a whole training from scratch by true sampling at the row's shares, measured on the
test split. The baselines are the recipe at five learning rates, constant and with its own
schedule, on all domains alike and on the target's alone; the best of each five is chosen on the
very numbers that are reported, which favours the baselines.

usage: reproduce_quickstart.py [RUN]    (runs/quickstart; tuned first if it isn't there)
"""

import dataclasses
import math
import sys
from pathlib import Path

import numpy as np
from rich.console import Console

from metatune import artefact
from metatune.fit.measuring import paired
from metatune.fit.outer_loop import fit
from metatune.fit.process.compilation import keep_compiled
from metatune.fit.trainers.evaluation import held_out_loss
from metatune.inner import prepare
from metatune.inner.seeds import Purpose
from metatune.recipe import reading, schema, shipped
from metatune.recipe.schema import Recipe

RATES = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)


def variant(recipe: Recipe, rate: float, *, constant: bool, target_only: bool) -> Recipe:
    """The recipe at another rate, with a constant schedule or on the target's domains alone."""
    optimizer = dataclasses.replace(recipe.inner.optimizer, learning_rate=rate)
    if constant:
        warmup = optimizer.schedule.warmup
        optimizer = dataclasses.replace(optimizer, schedule=schema.ConstantSpec(warmup=warmup))
    text = recipe.data
    if target_only:
        kept = {name: source for name, source in text.domains.items() if text.target.get(name)}
        text = dataclasses.replace(text, domains=kept)
    rates = schema.TuneSpec(learning_rates=schema.LearningRatesSpec(per="global"))
    inner = dataclasses.replace(recipe.inner, optimizer=optimizer)
    return dataclasses.replace(recipe, data=text, inner=inner, tune=rates)


def scores(recipe: Recipe) -> list[float]:
    """Held-out losses of the recipe as it is, one for each test seed."""
    training = prepare(recipe)
    report = recipe.outer.test
    return [
        held_out_loss(
            training,
            training.initial_eta(),
            purpose=Purpose.TEST,
            index=index,
            split="test",
            sequences=report.sequences,
        )
        for index in range(report.seeds)
    ]


def row(name: str, losses: list[float], tuned: list[float]) -> str:
    """A row of the table: mean, standard error, and the tuned schedule's paired difference."""
    error = np.std(losses, ddof=1) / math.sqrt(len(losses))
    text = f"| {name:44} | {np.mean(losses):.4f} ± {error:.4f} |"
    if losses is tuned:
        return f"{text} {'':25} |"
    difference = paired(losses, tuned)
    size, spread = difference["difference"], difference["standard_error"]
    assert size is not None and spread is not None
    return f"{text} {size:+.4f} ± {spread:.4f} ({size / spread:+.1f}) |"


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/quickstart")
    keep_compiled()
    recipe = reading.read(shipped.find("quickstart"))
    if not (folder / "artefact").exists():
        fit(prepare(recipe), folder, console=Console(stderr=True))
    result = artefact.load(folder).result
    tuned, default = list(result["after"]), list(result["before"])
    print(f"| training | held-out {result['unit']} | tuned minus this (in errors) |")
    print("|---|---|---|")
    print(row("tuned", tuned, tuned))
    print(row("the recipe's default", default, tuned))
    for target_only in (False, True):
        for constant in (True, False):
            rated = {
                rate: scores(variant(recipe, rate, constant=constant, target_only=target_only))
                for rate in RATES
            }
            best = min(rated, key=lambda rate: np.mean(rated[rate]))
            where = "target only" if target_only else "uniform"
            shape = "constant" if constant else recipe.inner.optimizer.schedule.kind
            print(row(f"{where}, {shape}, best of 5 rates ({best:g})", rated[best], tuned))
            for rate, losses in rated.items():
                print(row(f"&nbsp; {where}, {shape}, {rate:g}", losses, tuned), flush=True)


if __name__ == "__main__":
    main()
