"""What is measured on held-out text. A new measure is a row of `MEASURES`.

All are minimised: what is better when it is larger comes with a minus.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, Literal

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer

from metatune.data import Batch, Corpus, TokenClass, heldout_batches
from metatune.hypergrad.shapes import Parts, Scalar
from metatune.inner.devices import over_processes, share
from metatune.inner.losses import domain_losses, held_out_loss, worst_case
from metatune.models import LanguageModel, Layout, map_rows, rows_at_a_time, unembed
from metatune.recipe import schema
from metatune.recipe.measures import average
from metatune.tunables.shapes import Weights

Objective = Callable[[Weights, Batch], Parts]
"""`(params, batch) -> scalar`, the outer objective F, or what it is made of."""


def hits(model: LanguageModel, params: Weights, batch: Batch) -> Bool[Array, "batch places"]:
    """Whether each token but the first is the likeliest after those before it."""
    tokens = jnp.asarray(batch.tokens)
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    if batch.documents is None:
        hidden = model.hidden(params, inputs)
    else:
        hidden = model.hidden(params, inputs, jnp.asarray(batch.documents)[:, :-1])
    unembedding = model.unembedding(params)

    def likeliest(hidden: Float[Array, "rows width"]) -> Integer[Array, "rows"]:
        return jnp.argmax(unembed(hidden, unembedding, softcap=None), axis=-1)

    rows = hidden.reshape(-1, hidden.shape[-1])
    parts = model.parts(len(targets))
    columns = len(unembedding)
    chunk = rows_at_a_time(model.loss_chunk, rows=len(rows) // parts, columns=columns)
    # A softcap is monotonic: it changes no order.
    said = likeliest(rows) if chunk is None else map_rows(likeliest, (rows,), chunk, parts)
    return said.reshape(targets.shape) == targets


def negative_accuracy(model: LanguageModel) -> Objective:
    """Minus the share of tokens that are predicted, by the weights of a held-out batch."""

    def objective(params: Weights, batch: Batch) -> Scalar:
        right, counts = hits(model, params, batch), counted(batch)
        shares = jnp.sum(right & counts, axis=-1) / jnp.sum(counts, axis=-1)
        return -jnp.mean(batch.weight * shares)

    return objective


def negative_exact_match(model: LanguageModel) -> Objective:
    """Minus the share of sequences all of whose tokens are predicted, weighted by the target.

    The weights of the batch are those of an average over sequences. Of a sequence with
    completions, those are what has to be right.
    """

    def objective(params: Weights, batch: Batch) -> Scalar:
        right, counts = hits(model, params, batch), counted(batch)
        if batch.classes is not None:
            completes = counts & (jnp.asarray(batch.classes)[:, 1:] == TokenClass.COMPLETION)
            answers = jnp.any(completes, axis=-1, keepdims=True)
            counts = jnp.where(answers, completes, counts)
        return -jnp.mean(batch.weight * jnp.all(right | ~counts, axis=-1))

    return objective


def counted(batch: Batch) -> Bool[Array, "batch places"]:
    """Which tokens but the first are predicted from those before, and count."""
    if batch.mask is None:
        return jnp.ones(batch.tokens[:, 1:].shape, bool)
    return jnp.asarray(batch.mask) > 0


MEASURES: Final[Mapping[schema.Measure, Callable[[LanguageModel], Objective]]] = {
    "loss": held_out_loss,
    "accuracy": negative_accuracy,
    "exact_match": negative_exact_match,
}


def held_out_batches(
    outer: schema.OuterSpec,
    corpus: Corpus,
    split: Literal["validation", "test"],
    *,
    seed: tuple[int, ...],
    sequences: int,
    layout: Layout | None = None,
) -> list[Batch]:
    """The held-out batches of a measurement, weighted so that objectives average as is asked for.

    Args:
        outer: the recipe's section.
        corpus: the domains, with the target.
        split: which of their held-out windows.
        seed: of the draws.
        sequences: how many in all.
        layout: how states lie on several devices; of several processes each reads its share.
    """
    micro_batch = min(outer.objective.micro_batch, sequences)
    batches = heldout_batches(
        corpus,
        split,
        seed=seed,
        sequences=sequences,
        micro_batch=micro_batch,
        average=average(outer),
        part=share(layout),
    )
    whole = over_processes(layout, batches.__getitem__)
    return [whole(number) for number in range(len(batches))]


def objective(model: LanguageModel, recipe: schema.Recipe) -> Objective:
    """The outer objective of a recipe on a batch; where there is a `whole`, what it is made of."""
    if recipe.outer.objective.worst_case is not None:
        return domain_losses(model, len(recipe.data.domains))
    return MEASURES[recipe.outer.objective.measure](model)


def whole(outer: schema.OuterSpec) -> Callable[[Parts], Scalar] | None:
    """The outer objective of the mean over all held-out batches; None where it is that mean."""
    temperature = outer.objective.worst_case
    return None if temperature is None else partial(worst_case, temperature=temperature)
