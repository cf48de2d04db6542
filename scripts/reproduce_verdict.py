#!/usr/bin/env python3
"""Verdicts where the truth is known, and of the quickstart.

null        Two domains with the same text, a mixture tuned between them: no mixture can be better
            than the default. Each problem is a search and a verdict of a tiny model, with a seed of
            its own, against the regression over mixtures; rates, at which the default isn't the
            best, are left to nobody.
planted     The same trainings, with 0.02 nats taken off every loss of what was tuned.
quickstart  The quickstart, tuned first if it isn't there, against all contestants.
what-if     Of two small runs, 40 random changes of what was chosen, each number as far as those of
            its tunable have moved in the search (one standard deviation): predicted, and trained.
kills       Verdicts of a small run, killed 20 times at random moments: they come to the same files.
streams     Trainings of the quickstart's default one after the other and side by side, in turns:
            time and processor's time of each, and whether they come to the same losses.

usage: reproduce_verdict.py [--count N] [--out DIR]
                            [null] [planted] [quickstart] [what-if] [kills] [streams]
"""

import argparse
import collections
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console

from metatune.fit.making import artefact_of
from metatune.fit.outer_loop import fit
from metatune.fit.process.compilation import keep_compiled
from metatune.fit.run_folder import RunFolder
from metatune.inner import InnerTraining, prepare, prepare_file
from metatune.ladder.measuring import held_out_loss
from metatune.ladder.progress import Display
from metatune.recipe import reading, schema, shipped
from metatune.report.verdict import table
from metatune.runs.streams import Streams
from metatune.verdict import contest
from metatune.verdict.measuring import streams_of
from metatune.verdict.statistics import DEFAULT, TUNED
from metatune.verdict.statistics import contest as compare
from metatune.verdict.trainings import trainings
from metatune.verdict.what_if.asking import ask
from metatune.verdict.words import decide

PLANTED = 0.02
RESOLUTION = 0.01
"""Of null problems: that of 0.002 takes a thousand pairs of such small and noisy trainings."""

SEEDS = 40
CHANGES, PAIRS = 40, 24
SMOOTH = 1e-3
KILLS = 20
SIDE_BY_SIDE, TURNS = 4, 5
WIDER = {"hidden_size": 16, "intermediate_size": 32}
METATUNE = (sys.executable, "-c", "from metatune.cli import main; main()")
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


def small(rate: float = 1e-2) -> schema.Recipe:
    """A small training in which there is something to be gained, by rates and by mixture."""
    recipe = null(0)
    domains = {"one": TEXT, "other": schema.SourceSpec(shipped="drama_shakespeare")}
    return replace(
        recipe,
        model=schema.ModelSpec(config=dict(recipe.model.config or {}) | WIDER, remat=False),
        data=replace(recipe.data, domains=domains, target={"one": 1.0}, batch_size=8),
        inner=schema.InnerSpec(optimizer=schema.AdamWSpec(learning_rate=rate), steps=40),
        tune=schema.TuneSpec(
            learning_rates=schema.LearningRatesSpec(per="kind", windows=2),
            mixture=schema.MixtureSpec(windows=2, floor=0.05),
        ),
        outer=replace(
            recipe.outer,
            steps=8,
            objective=schema.ObjectiveSpec(sequences=64, micro_batch=64),
            validation=schema.ValidationSpec(seeds=2, sequences=256),
        ),
    )


def tuned(recipe: schema.Recipe, run: Path) -> Path:
    """The run of a recipe, tuned if it isn't there."""
    if not (run / "artefact").exists():
        shutil.rmtree(run, ignore_errors=True)
        fit(prepare(recipe), run, console=QUIET)
    return run


def what_if(run: Path) -> None:
    """Random changes: how many of their effects lie in the predicted interval."""
    asking = ask(run, training_of)
    start = asking.training.initial_eta()
    moved = {key: np.asarray(asking.eta[key]) - np.asarray(start[key]) for key in asking.keys}
    spread = np.concatenate(
        [np.full(each.size, np.sqrt(np.mean(each**2))) for each in moved.values()]
    )
    inside = holds = told = pairs = 0
    effects, errors, halves = [], [], []
    with asking.opened(Display(QUIET, 1.0)) as opened:
        for number in range(CHANGES):
            drawing = np.random.default_rng(number)
            delta = (spread * drawing.normal(size=len(spread))).astype(np.float32)
            found = opened.prediction(delta, f"change {number + 1}")
            measured = opened.measurement(delta, f"change {number + 1}", PAIRS)
            inside += found.low <= measured.mean <= found.high
            reach = np.hypot(found.half, measured.half)
            holds += abs(found.change - measured.mean) <= reach
            told += found.told
            pairs += found.pairs > 0
            effects.append(measured.mean)
            errors.append(found.change - measured.mean)
            halves.append(found.half)
            print(
                f"{number + 1}: predicted {found.change:+.4f} ± {found.half:.4f}, "
                f"measured {measured.mean:+.4f} ± {measured.half:.4f}",
                flush=True,
            )
    print(
        f"of {CHANGES} changes the measured effect lies in the 90 % interval of {inside}, within "
        f"both of {holds}; {told} predictions are told from zero, {pairs} are by pairs of "
        f"trainings. Effects are "
        f"{np.std(effects):.4f} around {np.mean(effects):+.4f}, predictions off by "
        f"{np.sqrt(np.mean(np.square(errors))):.4f}, intervals ± {np.mean(halves):.4f}"
    )


def kills(out: Path) -> None:
    """Kills verdicts at random moments, and compares what they come to."""
    run, drawing = tuned(small(), out / "small"), np.random.default_rng(0)
    words = ["--only", "grid,halving,regression,alignment", "--max-seeds", "8"]

    def begun(folder: Path) -> subprocess.Popen[bytes]:
        command = [*METATUNE, "verdict", str(folder), *words, "--resolution", "0.02"]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)

    def fresh(name: str) -> Path:
        shutil.rmtree(out / name, ignore_errors=True)
        shutil.copytree(run, out / name)
        return out / name

    def files(folder: Path) -> dict[str, bytes]:
        names = ("artefact/verdict.json", "artefact/tuned.json", "artefact-simple/tuned.json")
        return {name: (folder / name).read_bytes() for name in names if (folder / name).exists()}

    whole = fresh("whole")
    begun(whole).wait()  # compiles what isn't yet
    whole, began = fresh("whole"), time.monotonic()
    if begun(whole).wait():
        raise SystemExit("the verdict that nobody kills failed")
    took, wanted = time.monotonic() - began, files(whole)
    print(f"nobody kills: {took:.0f} s, {', '.join(wanted)}", flush=True)
    killed, ends = 0, collections.Counter[str]()
    while killed < KILLS:
        folder, finished = fresh("killed"), False
        while not finished:
            process = begun(folder)
            try:
                process.wait(float(drawing.uniform(0, took)) if killed < KILLS else None)
                finished = True
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                killed += 1
        ends["the same files" if files(folder) == wanted else "other files"] += 1
    print(f"{killed} kills in {sum(ends.values())} verdicts: {dict(ends)}")


def streams() -> None:
    """What trainings side by side take, against one after the other."""
    training = prepare(reading.read(shipped.find("quickstart")))
    default = artefact_of(training, training.initial_eta(), {})
    followed = trainings(training, default).of_artefact(default)

    def done(count: int) -> tuple[float, float, list[float]]:
        wall, processor = time.perf_counter(), time.process_time()
        jobs = [partial(held_out_loss, followed, index) for index in range(SIDE_BY_SIDE)]
        losses = Streams(count).each(jobs)
        return (
            (time.perf_counter() - wall) / SIDE_BY_SIDE,
            (time.process_time() - processor) / SIDE_BY_SIDE,
            losses,
        )

    held_out_loss(followed, 0)  # compiles
    several, ratios = streams_of(training), []
    for _ in range(TURNS):
        (alone, ours, expected), (beside, theirs, found) = done(1), done(several)
        ratios.append(alone / beside)
        print(
            f"a training alone {alone:.2f} s, {ours:.2f} s of processors; {several} at once "
            f"{beside:.2f} s each, {theirs:.2f} s of processors; x{ratios[-1]:.2f}; "
            f"{'the same losses' if found == expected else 'OTHER LOSSES'}",
            flush=True,
        )
    print(f"median of {TURNS} turns: x{np.median(ratios):.2f}")


def training_of(folder: RunFolder) -> InnerTraining:
    return prepare_file(folder.recipe)


def problems(count: int, out: Path) -> tuple[collections.Counter[str], collections.Counter[str]]:
    """The words of null problems, and of the same with a planted gain."""
    said, planted = collections.Counter[str](), collections.Counter[str]()
    for seed in range(count):
        run = out / f"null-{seed}"
        tuned(null(seed), run)
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
    if "what-if" in given.what:
        # One at whose rate the first steps are wrinkled, and one of slow and smooth trainings.
        for name, rate in (("small", 1e-2), ("smooth", SMOOTH)):
            print(f"{name}, at a rate of {rate:g}")
            what_if(tuned(small(rate), given.out / name))
    if "kills" in given.what:
        kills(given.out)
    if "streams" in given.what:
        streams()
    if "quickstart" in given.what:
        run, console = Path("runs/quickstart"), Console()
        if not (run / "artefact").exists():
            fit(prepare(reading.read(shipped.find("quickstart"))), run, console=console)
        found = contest.prepare(run, training_of, most=SEEDS)
        began = time.monotonic()
        with Display(console, found.work) as display:
            document, record = contest.hold(found, display)
        took, lines = time.monotonic() - began, record.count
        console.print(f"{lines} trainings in {took / 60:.1f} min; {found.work} were expected")
        names = [each.name for each in found.contestants]
        seconds = {name: record.seconds("search", name) for name in names}
        console.print(table(document, {"tuned": found.spent.seconds, **seconds}))


if __name__ == "__main__":
    main()
