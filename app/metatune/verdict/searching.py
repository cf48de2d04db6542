"""A contestant's search, by real trainings on the validation split, within the budget."""

import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np

from metatune.hypergrad.estimator import Listener
from metatune.inner.seeds import Purpose
from metatune.ladder.measuring import held_out_loss
from metatune.verdict.budget import in_trainings
from metatune.verdict.contestants import DIVERGED, Contestant, Setting
from metatune.verdict.points import Plain, Point
from metatune.verdict.trainings import Trainings
from metatune.verdict.trials import SEARCH, Trials

FINALISTS: Final = 3
RESEEDS: Final = 2
"""Of a search the best few by the one seed that all of its trainings have are trained with so many
more, and the best by the mean of all is chosen: else the luckiest is."""

ENOUGH: Final = 2 * FINALISTS * RESEEDS
"""Whole trainings of a budget, below which there is no such final."""

OWN_SEEDS: Final = 1 << 16
"""Numbers of validation trainings from which on contestants have theirs; a search has the first."""


class Chosen(NamedTuple):
    """What a contestant came to.

    Attributes:
        point: that it chose.
        held_out: its loss on the validation split, the mean over the seeds it was trained with.
        trainings: that it took, shortened ones too.
        inner_steps: that it took.
    """

    point: Point
    held_out: float
    trainings: int
    inner_steps: int


@dataclass(frozen=True, eq=False)
class Searching:
    """Where contestants search.

    Attributes:
        trainings: makes that of a point.
        setting: what contestants are told.
        budget: inner steps of each search.
        record: of all trainings.
        listen: makes what is told of a training, from its name and its share of the inner steps.
        done: is told that a training is over.
    """

    trainings: Trainings
    setting: Setting
    budget: int
    record: Trials
    listen: Callable[[str, float], Listener | None]
    done: Callable[[], None]

    def search(self, contestant: Contestant) -> Chosen:
        """Runs a search, then the final of its best points."""
        count = in_trainings(self.budget, self.setting.steps)
        final = FINALISTS * RESEEDS if count >= ENOUGH else 0
        name, first = contestant.name, seeds(contestant.name)
        whole: dict[Point, float] = {}
        taken: list[float] = []

        def evaluate(point: Point, share: float = 1.0) -> float:
            number = len(taken) + 1
            loss = self._loss(name, point, first, share, f"{name}, training {number} of {count}")
            taken.append(share)
            if share == 1:
                whole[point] = loss
            return loss

        contestant.search(self.setting, count - final, evaluate, first)
        best = sorted(whole, key=lambda point: whole[point])[:FINALISTS]
        losses = {point: [whole[point]] for point in best}
        for point in best if final else ():
            for reseed in range(1, RESEEDS + 1):
                what = f"{name}, final"
                losses[point].append(self._loss(name, point, first + reseed, 1.0, what))
                taken.append(1.0)
        if not losses:
            losses = {Plain(): [DIVERGED]}
        chosen = min(best or losses, key=lambda point: float(np.mean(losses[point])))
        held_out = float(np.mean(losses[chosen]))
        steps = round(sum(share * self.setting.steps for share in taken))
        return Chosen(chosen, held_out, len(taken), steps)

    def _loss(self, name: str, point: Point, seed: int, share: float, what: str) -> float:
        """Of the record, or of a training; a large number where that diverged."""
        loss = self.record.loss(SEARCH, name, point, seed, share)
        if loss is None:
            began = time.monotonic()
            loss = held_out_loss(
                self.trainings.followed(point, share),
                seed,
                purpose=Purpose.VALIDATION,
                listener=self.listen(what, share),
            )
            self.record.add(SEARCH, name, point, seed, loss, time.monotonic() - began, share)
            self.done()
        return loss if np.isfinite(loss) else DIVERGED


def seeds(name: str) -> int:
    """The number of the first validation training of a contestant: each has its own."""
    return OWN_SEEDS + (zlib.crc32(name.encode()) % (1 << 20)) * (1 + RESEEDS)


def trainings_of(contestants: Sequence[Any], budget: int, steps: int) -> int:
    """About how many whole trainings all searches take."""
    return len(contestants) * in_trainings(budget, steps)
