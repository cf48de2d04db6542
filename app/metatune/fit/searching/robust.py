"""Tuning for transfer: the mean hypergradient over trainings of several sizes, of one η."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metatune.fit.searching.asking import asked
from metatune.fit.searching.search import Search
from metatune.fit.searching.truncation import Span
from metatune.hypergrad import Hypergradient, Member, hypergradients
from metatune.hypergrad.estimator import Listener
from metatune.inner import InnerTraining
from metatune.inner.horizons import Rescaled
from metatune.inner.seeds import Purpose, direction_key, model_key
from metatune.recipe.phases import Phase
from metatune.recipe.schema import RobustSpec
from metatune.transfer.sized import Sized, rungs


@dataclass(frozen=True, eq=False)
class OfSizes:
    """The mean over trainings of several sizes; raises what `hypergradients` does.

    Trainings of a seed have the same data at all sizes. One is on the device at a time.

    Attributes:
        training: the recipe's own.
        sizes: the trainings, the recipe's own among them.
        seeds: trainings of each size.
        scratch: where checkpoints on disk lie.
        listen: makes what is told how far the next estimate is.
    """

    training: InnerTraining
    sizes: Sequence[Sized]
    seeds: int
    scratch: Path
    listen: Callable[[], Listener]

    def __call__(self, search: Search, phase: Phase, span: Span) -> Hypergradient:
        """As of `Source`."""
        members, options = self.trainings(search, phase, span)
        return hypergradients(
            members=members, vmap=False, states=False, listener=self.listen(), **options
        )

    def trainings(
        self, search: Search, phase: Phase, span: Span, *, beside: int = 0
    ) -> tuple[Sequence[Member], Mapping[str, Any]]:
        """As of `OuterStepTrainings`: all seeds of a size, then of the next, of its own problem."""
        del beside
        recipe = self.training.recipe
        batches, options = asked(self.training, search, phase, span, self.scratch)
        first = span.training if recipe.outer.fresh.initialisation else 0
        members = []
        for number in range(len(self.sizes) * self.seeds):
            size, seed = divmod(number, self.seeds)
            at = self.sizes[size].training
            # A single one is the training that a recipe without other sizes has.
            member = None if self.seeds == 1 else seed
            key = model_key(recipe.seed, Purpose.HYPERGRADIENT, first, member)
            members.append(
                Member(
                    begin=lambda at=at, key=key: at.initialise(key),
                    batches=batches(span.training, member),
                    key=direction_key(recipe.seed, search.step, number),
                    problem=Rescaled(at, span.steps).problem if span.rescaled else at.reweighted,
                )
            )
        return members, options


def objectives(spec: RobustSpec | None, estimate: Hypergradient) -> dict[str, float] | None:
    """The objective of each size, the mean over its seeds; None where there is one size."""
    values = estimate.diagnostics.values
    if spec is None or values is None:
        return None
    of_each = np.asarray(values, np.float64).reshape(-1, spec.seeds).mean(axis=1)
    names = [rung.name for rung in rungs(spec)]
    return dict(zip(names, map(float, of_each), strict=True))
