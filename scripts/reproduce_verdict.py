#!/usr/bin/env python3
"""Verdicts where the truth is known, and of the quickstart.

null        Two domains with the same text, a mixture tuned between them: no mixture can be better
            than the default. Each problem is a search and a verdict of a tiny model, with a seed of
            its own, against the regression over mixtures; rates, at which the default isn't the
            best, are left to nobody.
planted     The same trainings, with 0.02 nats taken off every loss of what was tuned.
quickstart  The quickstart, tuned first if it isn't there, against all contestants.

usage: reproduce_verdict.py [--count N] [--out DIR] [null] [planted] [quickstart]
"""

import argparse
import collections
import shutil
from pathlib import Path

from rich.console import Console

from metatune.fit.outer_loop import fit
from metatune.fit.process.compilation import keep_compiled
from metatune.fit.run_folder import RunFolder
from metatune.inner import InnerTraining, prepare, prepare_file
from metatune.ladder.progress import Display
from metatune.recipe import reading, schema, shipped
from metatune.report.verdict import table
from metatune.verdict import contest
from metatune.verdict.statistics import DEFAULT, TUNED
from metatune.verdict.statistics import contest as compare
from metatune.verdict.words import decide

PLANTED = 0.02
RESOLUTION = 0.01
"""Of null problems: that of 0.002 takes a thousand pairs of such small and noisy trainings."""

SEEDS = 40
QUIET = Console(quiet=True)
TEXT = schema.SourceSpec(shipped="code_stdlib")


def null(seed: int) -> schema.Recipe:
    """A tiny training in which nothing can be gained."""
    config = {
        "model_type": "llama",
        "hidden_size": 8,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    return schema.Recipe(
        model=schema.ModelSpec(config=config, remat=False),
        data=schema.DataSpec(
            domains={"one": TEXT, "other": TEXT},
            target={"one": 0.5, "other": 0.5},
            sequence_length=16,
            batch_size=4,
        ),
        inner=schema.InnerSpec(optimizer=schema.AdamWSpec(learning_rate=1e-2), steps=12),
        tune=schema.TuneSpec(mixture=schema.MixtureSpec(windows=2, floor=0.05)),
        outer=schema.OuterSpec(
            steps=4,
            objective=schema.ObjectiveSpec(sequences=8, micro_batch=8),
            validation=schema.ValidationSpec(seeds=1, sequences=32),
            test=schema.FinalTestSpec(seeds=2, sequences=64),
        ),
        seed=seed,
    )


def training_of(folder: RunFolder) -> InnerTraining:
    return prepare_file(folder.recipe)


def problems(count: int, out: Path) -> tuple[collections.Counter[str], collections.Counter[str]]:
    """The words of null problems, and of the same with a planted gain."""
    said, planted = collections.Counter[str](), collections.Counter[str]()
    for seed in range(count):
        run = out / f"null-{seed}"
        if not (run / "artefact").exists():
            shutil.rmtree(run, ignore_errors=True)
            fit(prepare(null(seed)), run, console=QUIET)
        found = contest.prepare(
            run,
            training_of,
            only=["regression"],
            most=SEEDS,
            resolution=RESOLUTION,
            parts=False,
        )
        document, _ = contest.hold(found, Display(QUIET, 1.0))
        said[document["word"]] += 1
        losses = {TUNED: document["tuned"]["losses"], DEFAULT: document["default"]["losses"]}

        def loss(name: str, seed: int, losses: dict[str, list[float]] = losses) -> float:
            return losses[name][seed] - PLANTED * (name == TUNED)

        seeds = document["seeds"]
        planted[decide(compare(loss, (), RESOLUTION, seeds)).word] += 1
        print(f"{seed + 1}: {document['sentence']}", flush=True)
    return said, planted


def main() -> None:
    parser = argparse.ArgumentParser(usage=(__doc__ or "").split("usage: ")[1])
    parser.add_argument("what", nargs="*", default=["null", "planted", "quickstart"])
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path("runs/verdict"))
    given = parser.parse_args()
    keep_compiled()
    if {"null", "planted"} & set(given.what):
        said, planted = problems(given.count, given.out)
        print(f"null problems: {dict(said)}")
        print(f"with {PLANTED} nats planted: {dict(planted)}")
    if "quickstart" in given.what:
        run, console = Path("runs/quickstart"), Console()
        if not (run / "artefact").exists():
            fit(prepare(reading.read(shipped.find("quickstart"))), run, console=console)
        found = contest.prepare(run, training_of, most=SEEDS)
        with Display(console, found.work) as display:
            document, record = contest.hold(found, display)
        names = [each.name for each in found.contestants]
        seconds = {name: record.seconds("search", name) for name in names}
        console.print(table(document, {"tuned": found.spent.seconds, **seconds}))


if __name__ == "__main__":
    main()
