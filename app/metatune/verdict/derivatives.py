"""Hypergradients and objectives of a run's training, at any meta-parameters, seed by seed.

They are those of an outer step whose objective is taken after the whole training, on seeds that no
search has. A seed's batches are those of the chosen mixture, weighed by others: so the objective of
a seed is a smooth function of η, and its differences have no noise of other batches.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import jax
import numpy as np

from metatune.data import stratified_batches
from metatune.hypergrad import evaluated, hypergradient, measured, train
from metatune.hypergrad.estimator import Listener
from metatune.hypergrad.problem import Batches
from metatune.inner import InnerTraining, estimators
from metatune.inner.metrics import held_out_batches
from metatune.inner.seeds import Purpose, Stream, data_seed, direction_key, model_key
from metatune.recipe import schema
from metatune.recipe.phases import resolved

OWN: Final = 1 << 20
"""Numbers of trainings for hypergradients from which on these are; a search has the first."""

HYPERGRADIENT: Final = 4.0
"""Trainings that a hypergradient takes as long as, about."""

Slices = Mapping[str, Any]
"""η, or its like, by tunable."""


class _Draw(NamedTuple):
    """What a seed determines."""

    number: int
    batches: Batches
    outer_batches: Any


@dataclass(frozen=True, eq=False)
class Derivatives:
    """Of one training.

    Attributes:
        training: of the run.
        eta: the meta-parameters at whose mixture batches are drawn.
        scratch: a folder for states that are kept on disk.
    """

    training: InnerTraining
    eta: Slices
    scratch: Path

    @property
    def spec(self) -> schema.EstimatorSpec:
        """How it is differentiated: as at the end of the search.

        Where nothing is said, and where the search's own estimate is of no single training
        (`persistent_es`), the exact way is taken.
        """
        own = resolved(self.training.recipe.outer)[-1].estimator
        other = isinstance(own, schema.AutoSpec | schema.PersistentESSpec)
        return schema.MixFlowSpec() if other else own

    def gradient(
        self, eta: Slices, seed: int, listener: Listener | None = None
    ) -> dict[str, np.ndarray]:
        """The hypergradient of a seed, 0 and above, by tunable, in float64."""
        recipe, draw = self.training.recipe, self._draw(seed)
        found = hypergradient(
            self.training.reweighted,
            dict(eta),
            self.training.initialise(model_key(recipe.seed, Purpose.HYPERGRADIENT, draw.number)),
            draw.batches,
            draw.outer_batches,
            steps=recipe.inner.steps,
            estimator=estimators.build(self.spec),
            checkpoints=estimators.checkpoints(self.spec, self.scratch),
            key=direction_key(recipe.seed, draw.number),
            listener=listener,
        )
        return {key: np.asarray(leaf, np.float64) for key, leaf in found.gradient.items()}

    def objective(self, eta: Slices, seed: int, listener: Listener | None = None) -> float:
        """The objective of a seed; infinite where the training diverged."""
        recipe, draw, problem = self.training.recipe, self._draw(seed), self.training.reweighted
        state, losses = train(
            problem,
            dict(eta),
            self.training.initialise(model_key(recipe.seed, Purpose.HYPERGRADIENT, draw.number)),
            draw.batches,
            steps=recipe.inner.steps,
            segment=getattr(estimators.build(self.spec), "segment", 16),
            donate=True,
            listener=listener,
        )
        if not np.isfinite(np.asarray(losses)).all():
            return float("inf")
        value = float(measured(problem, evaluated(problem, state), draw.outer_batches, np.float64))
        return value if np.isfinite(value) else float("inf")

    def _draw(self, seed: int) -> _Draw:
        recipe, corpus, number = self.training.recipe, self.training.corpus, OWN + seed
        own = data_seed(recipe.seed, Purpose.HYPERGRADIENT, number, Stream.TRAINING)
        batches = stratified_batches(
            corpus,
            seed=own,
            batch_size=recipe.data.batch_size,
            shares=self.training.trajectory(self.eta).mixture,
        )
        held_out = held_out_batches(
            recipe.outer,
            corpus,
            "validation",
            seed=data_seed(recipe.seed, Purpose.HYPERGRADIENT, number, Stream.HELD_OUT),
            sequences=recipe.outer.objective.sequences,
        )
        return _Draw(number, batches, held_out)


def shifted(eta: Slices, by: Slices, sign: float = 1.0) -> dict[str, jax.Array]:
    """η moved by a vector, or against it."""
    return {
        key: leaf + np.asarray(sign * by[key], leaf.dtype) if key in by else leaf
        for key, leaf in eta.items()
    }
