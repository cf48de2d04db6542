"""Whole trainings at given meta-parameters, by true sampling, measured on held-out text.

The hypergradient sees the mixture as weights on stratified batches; production training samples at
the shares. What chooses the best and what reports the result is the latter.
"""

from collections.abc import Callable, Mapping
from typing import Literal, Protocol

import jax
import numpy as np

from metatune.data import sampled_batches
from metatune.fit.trainers.failure import refuse_diverged
from metatune.hypergrad import State, evaluated, train
from metatune.hypergrad import measured as objective_of
from metatune.hypergrad.estimator import Listener
from metatune.inner import InnerTraining, estimators
from metatune.inner.devices import over_processes, share
from metatune.inner.metrics import held_out_batches
from metatune.inner.seeds import Purpose, Stream, data_seed, model_key
from metatune.recipe import phases


class Score(Protocol):
    """How a training is done and measured: `held_out_loss` of a training, or another's way."""

    def __call__(
        self,
        eta: Mapping[str, jax.Array],
        /,
        *,
        purpose: Purpose,
        index: int,
        split: Literal["validation", "test"],
        sequences: int,
        listener: Listener | None,
        keep: Callable[[np.ndarray], None] | None = None,
    ) -> float:
        """The loss; arguments as of `held_out_loss`. What trains elsewhere keeps no losses."""
        ...


def held_out_loss(
    training: InnerTraining,
    eta: Mapping[str, jax.Array],
    *,
    purpose: Purpose,
    index: int,
    split: Literal["validation", "test"],
    sequences: int,
    listener: Listener | None = None,
    keep: Callable[[np.ndarray], None] | None = None,
) -> float:
    """Trains once and measures.

    Args:
        training: the inner training.
        eta: meta-parameters.
        purpose: with `index`, the seed of initialisation and data order.
        index: which of the trainings for that purpose.
        split: what to measure on; the sequences are the same for every training of a purpose.
        sequences: how many sequences to measure on.
        listener: is told where the training stands.
        keep: is given the training losses, [steps].

    Returns:
        What the recipe measures, weighted by the target, in `recipe.measures.unit`.

    Raises:
        NotFinite: the training diverged.
    """
    recipe = training.recipe
    batches = sampled_batches(
        training.corpus,
        seed=data_seed(recipe.seed, purpose, index, Stream.TRAINING),
        batch_size=recipe.data.batch_size,
        shares=training.trajectory(eta).mixture,
        part=share(training.layout),
    )
    state, losses = train(
        training.sampled,
        eta,
        training.initialise(model_key(recipe.seed, purpose, index)),
        over_processes(training.layout, batches),
        steps=recipe.inner.steps,
        segment=estimators.build(phases.resolved(recipe.outer)[0].estimator).segment,
        listener=listener,
    )
    if keep is not None:
        keep(np.asarray(losses))
    name = purpose.name.lower()
    refuse_diverged(
        np.asarray(losses),
        f"{name} training {index}",
        training=name,
        seed=index,
        optimizer=recipe.inner.optimizer,
    )
    return measured(training, state, purpose=purpose, split=split, sequences=sequences)


def measured(
    training: InnerTraining,
    state: State,
    *,
    purpose: Purpose,
    split: Literal["validation", "test"],
    sequences: int,
) -> float:
    """The same of a trained state; arguments as of `held_out_loss`."""
    recipe = training.recipe
    seed = data_seed(recipe.seed, purpose, 0, Stream.HELD_OUT)
    held_out = held_out_batches(
        recipe.outer,
        training.corpus,
        split,
        seed=seed,
        sequences=sequences,
        layout=training.layout,
    )
    return objective_of(training.sampled, evaluated(training.sampled, state), held_out)
