"""Losses of a language model on a batch."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from metatune.data import Batch
from metatune.inner.cross_entropy import token_losses
from metatune.inner.multi_token_head import second_next_losses
from metatune.models import LanguageModel, rows_at_a_time
from metatune.recipe.schema.inner import MULTI_TOKEN_TERM
from metatune.tunables import Hyper, TokenClasses
from metatune.tunables.token_classes import PARTS


def sequence_losses(
    model: LanguageModel,
    params: Any,
    tokens: jax.typing.ArrayLike,
    *,
    documents: jax.typing.ArrayLike | None = None,
    mask: jax.typing.ArrayLike | None = None,
    weights: jax.Array | None = None,
    terms: Mapping[str, jax.Array] | None = None,
) -> jax.Array:
    """Mean next-token loss of each sequence over the tokens that count, in nats.

    Args:
        model: the language model.
        params: its parameters, and of the multi-token-prediction head where `terms` have its
            weight.
        tokens: [batch, sequence]; every token but the first is predicted.
        documents: which document a token is of, [batch, sequence]: attention stays within it.
        mask: 1 for the tokens that count, else 0, [batch, sequence - 1]; some of each sequence do.
        weights: of the tokens' losses, [batch, sequence - 1]: `Σ mask weight loss / Σ mask`.
        terms: coefficients of what else is in a token's loss, as of `token_losses`, and with
            `MULTI_TOKEN_TERM` that of `second_next_losses`.

    Returns:
        [batch].
    """
    tokens = jnp.asarray(tokens)
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    if documents is None:
        hidden = model.hidden(params, inputs)
    else:
        hidden = model.hidden(params, inputs, jnp.asarray(documents)[:, :-1])
    unembedding = model.unembedding(params)
    chunk = rows_at_a_time(model.loss_chunk, rows=targets.size, columns=len(unembedding))
    softcap = model.config.logit_softcap
    losses = token_losses(hidden, unembedding, targets, softcap=softcap, chunk=chunk, terms=terms)
    if terms and MULTI_TOKEN_TERM in terms:
        within = None if documents is None else jnp.asarray(documents)
        losses += terms[MULTI_TOKEN_TERM] * second_next_losses(
            params, hidden, unembedding, targets, within, softcap=softcap, chunk=chunk
        )
    if weights is not None:
        losses = weights * losses
    if mask is None:
        return jnp.mean(losses, axis=-1)
    return jnp.sum(mask * losses, axis=-1) / jnp.sum(mask, axis=-1)


def batch_losses(
    model: LanguageModel,
    params: Any,
    batch: Batch,
    weights: jax.Array | None = None,
    terms: Mapping[str, jax.Array] | None = None,
) -> jax.Array:
    """As `sequence_losses`, of a batch with its documents and its mask, [batch].

    Args:
        model: the language model.
        params: its parameters.
        batch: the batch.
        weights: of the tokens' losses, as of `sequence_losses`.
        terms: of a token's loss, as of `sequence_losses`.
    """
    return sequence_losses(
        model,
        params,
        batch.tokens,
        documents=batch.documents,
        mask=batch.mask,
        weights=weights,
        terms=terms,
    )


def _training_losses(
    model: LanguageModel, classes: TokenClasses, params: Any, hyper: Hyper, batch: Batch
) -> jax.Array:
    """Those of a batch as λ_t has them, but for the weights of sequences, [batch].

    Weights of tokens, as those of sequences, are in the numerator alone: a mean is over the tokens
    that count, whatever they weigh.
    """
    weights = None
    if hyper.class_weights is not None and (of_token := classes.of(batch)) is not None:
        weights = hyper.class_weights[of_token]
    return batch_losses(model, params, batch, weights, hyper.loss_terms)


def _rated(hyper: Hyper, batch: Batch, weights: jax.Array) -> jax.typing.ArrayLike:
    """Weights of the sequences by the rater, [batch]; one without.

    They average one over the sequences that the mixture draws, however many tokens of each count.

    Args:
        hyper: λ_t.
        batch: the batch.
        weights: of the sequences' mean losses, by their draws alone, [batch].
    """
    if hyper.rater is None:
        return 1.0
    drawn = weights if batch.mask is None else weights / jnp.sum(batch.mask, axis=-1)
    return hyper.rater(batch.tokens, batch.mask, drawn)


def reweighted_loss(
    model: LanguageModel, classes: TokenClasses = PARTS
) -> Callable[[Any, Hyper, Batch], jax.Array]:
    """The training loss at a mixture that the batch was not drawn at, differentiable by it.

    A stratified batch holds sequences of every domain. With shares p and weights w of the losses
    the loss is `Σ_d w_d p_d S_d / Σ_d p_d N_d`: S_d is the sum of the losses of domain d's tokens,
    N_d the number of those that count, each over the number of its sequences in the whole batch.
    That is what sampling at p comes to, and where all tokens count `Σ_d w_d p_d (mean loss of
    domain d)`. The weights of a rater come on top.

    Args:
        model: the language model.
        classes: of tokens, that λ_t may weigh.
    """

    def loss(params: Any, hyper: Hyper, batch: Batch) -> jax.Array:
        weights = (hyper.mixture * hyper.loss_weights)[batch.domain] * batch.weight
        if batch.lengths is not None:
            weights /= jnp.sum(hyper.mixture[None, :] * batch.lengths, axis=-1)
        weights *= _rated(hyper, batch, hyper.mixture[batch.domain] * batch.weight)
        return jnp.mean(weights * _training_losses(model, classes, params, hyper, batch))

    return loss


def sampled_loss(
    model: LanguageModel, classes: TokenClasses = PARTS
) -> Callable[[Any, Hyper, Batch], jax.Array]:
    """The training loss on a batch that was drawn at the mixture's own shares.

    The sum of its tokens' weighted losses over the number of those that count: what the Trainer of
    transformers minimises, over all micro-batches of an update together.

    Args:
        model: the language model.
        classes: of tokens, that λ_t may weigh.
    """

    def loss(params: Any, hyper: Hyper, batch: Batch) -> jax.Array:
        weights = hyper.loss_weights[batch.domain] * batch.weight
        weights *= _rated(hyper, batch, jnp.asarray(batch.weight))
        return jnp.mean(weights * _training_losses(model, classes, params, hyper, batch))

    return loss


def held_out_loss(model: LanguageModel) -> Callable[[Any, Batch], jax.Array]:
    """The target-weighted loss on a held-out batch, whose weights carry the target."""

    def objective(params: Any, batch: Batch) -> jax.Array:
        return jnp.mean(batch.weight * batch_losses(model, params, batch))

    return objective


class DomainLosses(NamedTuple):
    """What a batch adds to the losses of the domains; those are of the means over all batches.

    Attributes:
        weighted: target times loss, [domains].
        target: [domains].
    """

    weighted: jax.Array
    target: jax.Array


def domain_losses(model: LanguageModel, domains: int) -> Callable[[Any, Batch], DomainLosses]:
    """The target-weighted losses of each domain by itself on a held-out batch.

    Args:
        model: the language model.
        domains: how many there are.
    """

    def objective(params: Any, batch: Batch) -> DomainLosses:
        def of_domains(each: jax.Array) -> jax.Array:
            return jax.ops.segment_sum(each, jnp.asarray(batch.domain), domains) / len(each)

        weights = jnp.asarray(batch.weight)
        # The weights of a domain's sequences, over the number of all, sum to its target.
        target = of_domains(weights)
        return DomainLosses(of_domains(weights * batch_losses(model, params, batch)), target)

    return objective


def worst_case(found: DomainLosses, temperature: float) -> jax.Array:
    """A smooth maximum over the target's domains: `T log Σ_d target_d exp(l_d / T)`.

    Args:
        found: the mean over all held-out batches.
        temperature: T, in nats.
    """
    weighted, target = found
    losses = jnp.where(target > 0, weighted / jnp.where(target > 0, target, 1), 0)
    return temperature * jax.nn.logsumexp(losses / temperature, b=target)
