"""A contestant's search, by real trainings on the validation split, within the budget."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from metatune.inner.seeds import Purpose
from metatune.verdict.budget import in_trainings
from metatune.verdict.contestants import DIVERGED, Contestant, ContestSetting
from metatune.verdict.contestants.contestant import PROXY
from metatune.verdict.measuring import Measuring
from metatune.verdict.points import Point
from metatune.verdict.trainings import ContestTrainings

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
        course: inner steps spent, and the least validation loss of a whole training by then, at
            each training that brought a lower one; by the one seed that the search has.
    """

    point: Point
    held_out: float
    trainings: int
    inner_steps: int
    course: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, eq=False)
class Searching:
    """Where contestants search.

    Attributes:
        trainings: makes that of a point.
        setting: what contestants are told.
        budget: inner steps of each search.
        measure: trains what isn't known.
    """

    trainings: ContestTrainings
    setting: ContestSetting
    budget: int
    measure: Measuring

    def search(self, contestant: Contestant) -> Chosen:
        """Runs a search, then the final of its best points."""
        count = in_trainings(self.budget, self.setting.steps)
        final = FINALISTS * RESEEDS if count >= ENOUGH else 0
        first = seeds(contestant.name)
        evaluate = _Evaluation(self, contestant.name, first, count, {}, [], [])
        whole, taken, loss = evaluate.whole, evaluate.taken, evaluate.loss
        contestant.search(self.setting, count - final, evaluate, first)
        best = sorted(whole, key=lambda point: whole[point])[: FINALISTS if final else 1]
        means = {
            point: float(
                np.mean(
                    [
                        whole[point],
                        *(
                            loss(point, first + reseed, 1.0, "final")
                            for reseed in range(1, 1 + RESEEDS if final else 1)
                        ),
                    ]
                )
            )
            for point in best
        }
        chosen = min(best, key=lambda point: means[point])
        return Chosen(chosen, means[chosen], len(taken), evaluate.steps, tuple(evaluate.course))


@dataclass(frozen=True, eq=False)
class _Evaluation:
    """The trainings of a search; see `Evaluate`.

    Attributes:
        searching: what it is of.
        name: of the contestant.
        first: number of its first validation training.
        count: trainings of the budget.
        whole: losses of whole trainings.
        taken: trainings so far, as shares of a whole one.
        course: as of `Chosen`, so far.
    """

    searching: Searching
    name: str
    first: int
    count: int
    whole: dict[Point, float]
    taken: list[float]
    course: list[tuple[int, float]]

    def __call__(self, point: Point, share: float = 1.0) -> float:
        found = self.loss(point, self.first, share, self._number)
        if share == 1:
            self.whole[point] = found
            if found < (self.course[-1][1] if self.course else DIVERGED):
                self.course.append((self.steps, found))
        return found

    @property
    def steps(self) -> int:
        """Inner steps so far."""
        return round(sum(share * self.searching.setting.steps for share in self.taken))

    def aligned(self, reach: float) -> tuple[float, ...]:
        what, trainings = f"{self.name}, proxy", self.searching.trainings
        self.taken.append(PROXY)
        return self.searching.measure.aligned(
            self.name, self.first, reach, lambda: trainings.of_artefact(trainings.default), what
        )

    def loss(self, point: Point, seed: int, share: float, what: str) -> float:
        self.taken.append(share)
        found = self.searching.measure(
            "search",
            self.name,
            point,
            seed,
            lambda: self.searching.trainings.followed(point, share),
            purpose=Purpose.VALIDATION,
            what=f"{self.name}, {what}",
            share=share,
        )
        return found if np.isfinite(found) else DIVERGED

    @property
    def _number(self) -> str:
        return f"training {len(self.taken) + 1} of {self.count}"


def seeds(name: str) -> int:
    """The number of the first validation training of a contestant: each has its own."""
    return OWN_SEEDS + (zlib.crc32(name.encode()) % (1 << 20)) * (1 + RESEEDS)


def trainings_of(contestants: Sequence[Contestant], budget: int, steps: int) -> int:
    """About how many whole trainings all searches take."""
    return len(contestants) * in_trainings(budget, steps)
