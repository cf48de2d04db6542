"""Validation: whole trainings at the meta-parameters of a point, measured on held-out text."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from metatune.fit.process.allocation import release_memory
from metatune.fit.searching.search import Search
from metatune.fit.trainers.evaluation import Score
from metatune.fit.trainers.failure import NotFinite
from metatune.hypergrad.estimator import Listener
from metatune.inner.seeds import Purpose
from metatune.recipe.schema import OuterSpec


class Validated(NamedTuple):
    """Held-out losses at a point.

    Attributes:
        held_out: at its meta-parameters; infinite where a training diverged, not a number where
            none was asked for.
        of_average: at their moving average, likewise; None where there is none.
        each: of each training at the meta-parameters, [seeds]; none where one diverged, or none
            was asked for. Of several sizes the mean of each seed's.
        sizes: of each size by its name, the mean over seeds; None where there is one size, or none
            was asked for.
        diverged: the first that did, where one did.
    """

    held_out: float = math.nan
    of_average: float | None = None
    each: tuple[float, ...] = ()
    sizes: Mapping[str, float] | None = None
    diverged: NotFinite | None = None

    @property
    def remark(self) -> str:
        """What there is to say of a loss that is no number to keep."""
        if not math.isinf(self.held_out):
            return ""
        found, where = self.diverged, ""
        if found is not None and found.seed is not None:
            where = f", that of seed {found.seed}"
        if found is not None and found.inner_step is not None:
            where += f", at inner step {found.inner_step}"
        return f"held-out inf: a training diverged{where}"


@dataclass(frozen=True, eq=False)
class Validation:
    """Whole trainings, the same for every point.

    Attributes:
        outer: of the recipe.
        scores: how a training is done and measured, by the name of its size.
        listen: makes what is told how far the training of a name is.
    """

    outer: OuterSpec
    scores: Mapping[str, Score]
    listen: Callable[[str], Listener]

    def is_due(self, search: Search) -> bool:
        """Whether a point that an outer step is taken from is validated first."""
        return search.step == search.phase_start or search.step % self.outer.validation.every == 0

    def __call__(self, search: Search) -> tuple[Search, Validated]:
        """Validates the meta-parameters and, where there is one, their average; keeps the best."""
        each, sizes, diverged = self._losses(search.eta, search.step)
        held_out = _mean(each)
        search = keep_best(search, held_out)
        if self.outer.ema is None:
            return search, Validated(held_out, None, each, sizes, diverged)
        if not search.step:
            return search, Validated(held_out, held_out, each, sizes, diverged)  # an average of one
        of_average = _mean(self._losses(search.average, search.step)[0])
        search = keep_best(search, of_average, averaged=True)
        return search, Validated(held_out, of_average, each, sizes, diverged)

    def _losses(
        self, eta: Mapping[str, Any], step: int
    ) -> tuple[tuple[float, ...], dict[str, float] | None, NotFinite | None]:
        """Held-out losses of whole trainings at some meta-parameters, by seed and by size.

        None, and what was found, if one diverges: such meta-parameters can't be the best, but the
        search may leave them again. At the recipe's own it is a fault.
        """
        release_memory()
        seeds = range(self.outer.validation.seeds)
        try:
            found = {
                name: [self._loss(eta, index, name, score) for index in seeds]
                for name, score in self.scores.items()
            }
        except NotFinite as error:
            if step == 0:
                raise
            return (), None, error
        several = len(found) > 1
        sizes = {name: float(np.mean(losses)) for name, losses in found.items()}
        return _over_sizes(list(found.values())), sizes if several else None, None

    def _loss(self, eta: Mapping[str, Any], index: int, name: str, score: Score) -> float:
        where = f", {name}" if len(self.scores) > 1 else ""
        return score(
            eta,
            purpose=Purpose.VALIDATION,
            index=index,
            split="validation",
            sequences=self.outer.validation.sequences,
            listener=self.listen(f"validation {index + 1}{where}"),
        )


def _over_sizes(found: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Of each seed the mean over sizes; of one size the very losses."""
    return tuple(found[0]) if len(found) == 1 else tuple(map(float, np.mean(found, axis=0)))


def _mean(losses: tuple[float, ...]) -> float:
    """Infinite where a training diverged."""
    return float(np.mean(losses)) if losses else math.inf


def keep_best(search: Search, held_out: float, averaged: bool = False) -> Search:
    """Keeps the current meta-parameters, or their average, as the best if they are."""
    if held_out < search.best_held_out:
        return search._replace(
            best_eta=search.average if averaged else search.eta,
            best_step=search.step,
            best_held_out=held_out,
            best_averaged=averaged,
        )
    return search
