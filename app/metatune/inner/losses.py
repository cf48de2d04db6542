"""Losses of a language model on a batch."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from metatune.data import Batch
from metatune.inner.cross_entropy import token_losses
from metatune.models import LanguageModel, rows_at_a_time
from metatune.tunables import Hyper


def sequence_losses(model: LanguageModel, params: Any, tokens: jax.typing.ArrayLike) -> jax.Array:
    """Mean next-token loss of each sequence, in nats per token.

    Args:
        model: the language model.
        params: its parameters.
        tokens: [batch, sequence]; every token but the first is predicted.

    Returns:
        [batch].
    """
    tokens = jnp.asarray(tokens)
    hidden, targets = model.hidden(params, tokens[:, :-1]), tokens[:, 1:]
    unembedding = model.unembedding(params)
    chunk = rows_at_a_time(model.loss_chunk, rows=targets.size, columns=len(unembedding))
    softcap = model.config.logit_softcap
    losses = token_losses(hidden, unembedding, targets, softcap=softcap, chunk=chunk)
    return jnp.mean(losses, axis=-1)


def reweighted_loss(model: LanguageModel) -> Callable[[Any, Hyper, Batch], jax.Array]:
    """The training loss at a mixture that the batch was not drawn at, differentiable by it.

    A stratified batch holds sequences of every domain. With shares p, weights w of the losses and
    `weight` = batch size / sequences of the domain, the mean of `w[domain] p[domain] weight loss`
    is exactly `Σ_d w_d p_d (mean loss of domain d)`.
    """

    def loss(params: Any, hyper: Hyper, batch: Batch) -> jax.Array:
        weights = (hyper.mixture * hyper.loss_weights)[batch.domain] * batch.weight
        return jnp.mean(weights * sequence_losses(model, params, batch.tokens))

    return loss


def sampled_loss(model: LanguageModel) -> Callable[[Any, Hyper, Batch], jax.Array]:
    """The training loss on a batch that was drawn at the mixture's own shares."""

    def loss(params: Any, hyper: Hyper, batch: Batch) -> jax.Array:
        weights = hyper.loss_weights[batch.domain] * batch.weight
        return jnp.mean(weights * sequence_losses(model, params, batch.tokens))

    return loss


def held_out_loss(model: LanguageModel) -> Callable[[Any, Batch], jax.Array]:
    """The target-weighted loss on a held-out batch, whose weights carry the target."""

    def objective(params: Any, batch: Batch) -> jax.Array:
        return jnp.mean(batch.weight * sequence_losses(model, params, batch.tokens))

    return objective
