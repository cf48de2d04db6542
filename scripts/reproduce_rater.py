#!/usr/bin/env python3
"""How well the tuned rater of `rater` finds what was spoilt, and what it is worth to leave it out.

First the area under the ROC curve (AUC): how often a sequence that is as it was scores higher than
one that was spoilt, on the test split of the text, which no training and no search has seen,
spoilt here in the same ways.

Then whole trainings of the recipe, without any weights, on unseen seeds: on all training sequences,
on those that score best, on as many by chance, and on those that are known to be as they were. All
end on the same held-out text, which isn't spoilt.

usage: reproduce_rater.py [RUN [KEY.PATH=VALUE]...]    (runs/rater; tuned first if it isn't there)
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console

from metatune.data import Corpus
from metatune.data.corruption import INTACT
from metatune.data.windows import Windows
from metatune.fit.measuring import paired
from metatune.fit.outer_loop import fit
from metatune.fit.process.compilation import keep_compiled
from metatune.fit.trainers.evaluation import held_out_loss
from metatune.inner import InnerTraining, prepare
from metatune.inner.seeds import Purpose
from metatune.recipe import reading, shipped
from metatune.recipe.measures import unit
from metatune.score import Scorer, scorer, sequence_scores

UNSEEN = range(100, 105)
"""Numbers of the trainings: those of the recipe's own report come before."""


def area(scores: np.ndarray, spoilt: np.ndarray) -> float:
    """How often what is intact scores higher than what is spoilt, ties counted half."""
    intact, rest = np.sort(scores[~spoilt]), scores[spoilt]
    below = np.searchsorted(intact, rest, "left") + np.searchsorted(intact, rest, "right")
    return 1 - float(below.mean()) / (2 * len(intact))


def scores_of(judge: Scorer, windows: Windows) -> np.ndarray:
    """The score of every window."""
    found = []
    for places in windows.stretches():
        rows = windows.take(places)
        mask = np.ones(rows.tokens[:, 1:].shape, np.float32) if rows.mask is None else rows.mask
        found.append(sequence_scores(judge, rows.tokens, mask))
    return np.concatenate(found)


def with_windows(training: InnerTraining, name: str, kept: np.ndarray) -> InnerTraining:
    """The training on some of the training windows of a domain, booleans [windows]."""
    corpus: Corpus = training.corpus
    domains = tuple(
        replace(domain, train=replace(domain.train, numbers=domain.train.numbers[kept]))
        if domain.name == name
        else domain
        for domain in corpus.domains
    )
    return replace(training, corpus=replace(corpus, domains=domains))


def losses_of(training: InnerTraining) -> list[float]:
    """Held-out losses, a training for each of the unseen seeds."""
    return [
        held_out_loss(
            training,
            training.initial_eta(),
            purpose=Purpose.TEST,
            index=index,
            split="test",
            sequences=training.recipe.outer.test.sequences,
        )
        for index in UNSEEN
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", nargs="?", type=Path, default=Path("runs/rater"))
    parser.add_argument("overrides", nargs="*", metavar="KEY.PATH=VALUE")
    given = parser.parse_args()
    folder = given.run
    keep_compiled()
    recipe = reading.read(shipped.find("rater"), given.overrides)
    training = prepare(recipe)
    if not (folder / "artefact").exists():
        fit(training, folder, console=Console(stderr=True))
    judge = scorer(folder)
    (domain,) = (each for each in training.corpus.domains if each.train.corruption is not None)
    corruption = domain.train.corruption
    assert corruption is not None
    unseen = replace(domain.test, corruption=corruption)
    scores, ways = scores_of(judge, unseen), unseen.ways(np.arange(len(unseen)))
    print(f"AUC on {len(unseen)} sequences that nothing was trained on:")
    print(f"  all ways       {area(scores, ways != INTACT):.4f}")
    for way in corruption.ways:
        among = (ways == way) | (ways == INTACT)
        print(f"  {way:14} {area(scores[among], ways[among] != INTACT):.4f}")
    places = np.arange(len(domain.train))
    scores, spoilt = scores_of(judge, domain.train), domain.train.corrupted(places)
    count = round((1 - corruption.share) * len(places))
    best = np.zeros(len(places), bool)
    best[np.argsort(-scores, kind="stable")[:count]] = True
    print(
        f"of the best {count} of {len(places)} training sequences {spoilt[best].mean():.1%} are "
        f"spoilt, of all {spoilt.mean():.1%}"
    )
    by_chance = np.random.default_rng(0).permutation(best)
    everything = losses_of(training)
    print(f"| trained on | held-out {unit(recipe)} | minus all sequences |")
    print("|---|---|---|")
    print(f"| all sequences | {np.mean(everything):.4f} | |")
    for name, kept in (
        ("the best by the rater", best),
        ("as many by chance", by_chance),
        ("those known to be intact", ~spoilt),
    ):
        losses = losses_of(with_windows(training, domain.name, kept))
        difference = paired(everything, losses)
        print(
            f"| {name} | {np.mean(losses):.4f} | {difference['difference']:+.4f} ± "
            f"{difference['standard_error']:.4f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
