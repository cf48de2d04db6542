"""Validation: whole trainings at the meta-parameters of a point, measured on held-out text."""

import math
from collections.abc import Callable, Mapping
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
            was asked for.
    """

    held_out: float = math.nan
    of_average: float | None = None
    each: tuple[float, ...] = ()

    @property
    def remark(self) -> str:
        """What there is to say of a loss that is no number to keep."""
        return "held-out inf: a training diverged" if math.isinf(self.held_out) else ""


@dataclass(frozen=True, eq=False)
class Validation:
    """Whole trainings, the same for every point.

    Attributes:
        outer: of the recipe.
        score: how a training is done and measured.
        listen: makes what is told how far the training of a name is.
    """

    outer: OuterSpec
    score: Score
    listen: Callable[[str], Listener]

    def is_due(self, search: Search) -> bool:
        """Whether a point that an outer step is taken from is validated first."""
        return search.step == search.phase_start or search.step % self.outer.validation.every == 0

    def __call__(self, search: Search) -> tuple[Search, Validated]:
        """Validates the meta-parameters and, where there is one, their average; keeps the best."""
        each = self._losses(search.eta, search.step)
        held_out = _mean(each)
        search = keep_best(search, held_out)
        if self.outer.ema is None:
            return search, Validated(held_out, each=each)
        if not search.step:
            return search, Validated(held_out, held_out, each)  # an average of one
        of_average = _mean(self._losses(search.average, search.step))
        return keep_best(search, of_average, averaged=True), Validated(held_out, of_average, each)

    def _losses(self, eta: Mapping[str, Any], step: int) -> tuple[float, ...]:
        """Held-out losses of whole trainings at some meta-parameters.

        None if one diverges: such meta-parameters can't be the best, but the search may leave them
        again. At the recipe's own it is a fault.
        """
        release_memory()
        try:
            return tuple(self._loss(eta, index) for index in range(self.outer.validation.seeds))
        except NotFinite:
            if step == 0:
                raise
            return ()

    def _loss(self, eta: Mapping[str, Any], index: int) -> float:
        return self.score(
            eta,
            purpose=Purpose.VALIDATION,
            index=index,
            split="validation",
            sequences=self.outer.validation.sequences,
            listener=self.listen(f"validation {index + 1}"),
        )


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
