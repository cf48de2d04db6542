"""Losses of a language model on a batch."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer, Shaped

from metatune.data import Batch
from metatune.hypergrad.shapes import Scalar
from metatune.inner.cross_entropy import token_losses
from metatune.inner.multi_token_head import second_next_losses
from metatune.models import LanguageModel, Routing, imbalance, rows_at_a_time
from metatune.recipe.schema.inner import BALANCE_TERM, MULTI_TOKEN_TERM
from metatune.tunables import Hyper, TokenClasses
from metatune.tunables.shapes import Weights
from metatune.tunables.token_classes import PARTS

Loss = Callable[[Weights, Hyper, Batch], Scalar]
"""`(params, hyper, batch) -> scalar`, as of a `Problem`."""


def sequence_losses(
    model: LanguageModel,
    params: Weights,
    tokens: Integer[Array | np.ndarray, "batch sequence"],
    *,
    documents: Integer[Array | np.ndarray, "batch sequence"] | None = None,
    mask: Shaped[Array | np.ndarray, "batch sequence-1"] | None = None,
    weights: Float[Array, "batch sequence-1"] | None = None,
    terms: Mapping[str, Scalar] | None = None,
) -> Float[Array, "batch"]:
    """Mean next-token loss of each sequence over the tokens that count, in nats.

    Args:
        model: the language model.
        params: its parameters, and of the multi-token-prediction head where `terms` have its
            weight.
        tokens: every one but the first is predicted.
        documents: which document a token is of: attention stays within it.
        mask: 1 for the tokens that count, else 0; some of each sequence do.
        weights: of the tokens' losses: `Σ mask weight loss / Σ mask`.
        terms: coefficients of what else is in a token's loss, as of `token_losses`, and with
            `MULTI_TOKEN_TERM` that of `second_next_losses`.
    """
    return _losses_and_routing(
        model, params, tokens, documents=documents, mask=mask, weights=weights, terms=terms
    )[0]


def _losses_and_routing(
    model: LanguageModel,
    params: Weights,
    tokens: Integer[Array | np.ndarray, "batch sequence"],
    *,
    documents: Integer[Array | np.ndarray, "batch sequence"] | None,
    mask: Shaped[Array | np.ndarray, "batch sequence-1"] | None,
    weights: Float[Array, "batch sequence-1"] | None,
    terms: Mapping[str, Scalar] | None,
) -> tuple[Float[Array, "batch"], Routing | None]:
    """As `sequence_losses`, and where the tokens went in a model with experts."""
    tokens = jnp.asarray(tokens)
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    within = None if documents is None else jnp.asarray(documents)[:, :-1]
    hidden, routing = model.hidden_and_routing(params, inputs, within)
    unembedding = model.unembedding(params)
    parts = model.parts(len(targets))
    rows, columns = targets.size // parts, len(unembedding)
    chunk = rows_at_a_time(model.loss_chunk, rows=rows, columns=columns)
    softcap = model.config.logit_softcap
    losses = token_losses(
        hidden, unembedding, targets, softcap=softcap, chunk=chunk, parts=parts, terms=terms
    )
    if terms and MULTI_TOKEN_TERM in terms:
        within = None if documents is None else jnp.asarray(documents)
        losses += terms[MULTI_TOKEN_TERM] * second_next_losses(
            params, hidden, unembedding, targets, within, softcap=softcap, chunk=chunk, parts=parts
        )
    if weights is not None:
        losses = weights * losses
    if mask is None:
        return jnp.mean(losses, axis=-1), routing
    return jnp.sum(mask * losses, axis=-1) / jnp.sum(mask, axis=-1), routing


def batch_losses(
    model: LanguageModel,
    params: Weights,
    batch: Batch,
    weights: Float[Array, "batch places"] | None = None,
    terms: Mapping[str, Scalar] | None = None,
) -> Float[Array, "batch"]:
    """As `sequence_losses`, of a batch with its documents and its mask.

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
    model: LanguageModel, classes: TokenClasses, params: Weights, hyper: Hyper, batch: Batch
) -> tuple[Float[Array, "batch"], Routing | None]:
    """Those of a batch as λ_t has them, but for the weights of sequences; and where tokens went.

    Weights of tokens, as those of sequences, are in the numerator alone: a mean is over the tokens
    that count, whatever they weigh.
    """
    weights = None
    if hyper.class_weights is not None and (of_token := classes.of(batch)) is not None:
        weights = hyper.class_weights[of_token]
    return _losses_and_routing(
        model,
        params,
        batch.tokens,
        documents=batch.documents,
        mask=batch.mask,
        weights=weights,
        terms=hyper.loss_terms,
    )


def _balanced(
    loss: Scalar,
    hyper: Hyper,
    routing: Routing | None,
    draws: Float[Array, "batch"],
    batch: Batch,
) -> Scalar:
    """The loss of a batch with what uneven use of the experts adds; every token counts there.

    Args:
        loss: of the batch without.
        hyper: λ_t.
        routing: where the tokens went.
        draws: weights of the sequences by how often the mixture draws them.
        batch: the batch.
    """
    coefficient = (hyper.loss_terms or {}).get(BALANCE_TERM)
    if coefficient is None or routing is None:
        return loss
    return loss + coefficient * imbalance(routing, draws, batch.tokens.shape[1] - 1)


def _rated(
    hyper: Hyper, batch: Batch, weights: Float[Array, "batch"]
) -> Float[Array, "batch"] | float:
    """Weights of the sequences by the rater; one without.

    They average one over the sequences that the mixture draws, however many tokens of each count.

    Args:
        hyper: λ_t.
        batch: the batch.
        weights: of the sequences' mean losses, by their draws alone.
    """
    if hyper.rater is None:
        return 1.0
    drawn = weights if batch.mask is None else weights / jnp.sum(batch.mask, axis=-1)
    return hyper.rater(batch.tokens, batch.mask, drawn)


def reweighted_loss(model: LanguageModel, classes: TokenClasses = PARTS) -> Loss:
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

    def loss(params: Weights, hyper: Hyper, batch: Batch) -> Scalar:
        weights = (hyper.mixture * hyper.loss_weights)[batch.domain] * batch.weight
        if batch.lengths is not None:
            weights /= jnp.sum(hyper.mixture[None, :] * batch.lengths, axis=-1)
        draws = hyper.mixture[batch.domain] * batch.weight
        weights *= _rated(hyper, batch, draws)
        losses, routing = _training_losses(model, classes, params, hyper, batch)
        return _balanced(jnp.mean(weights * losses), hyper, routing, draws, batch)

    return loss


def sampled_loss(model: LanguageModel, classes: TokenClasses = PARTS) -> Loss:
    """The training loss on a batch that was drawn at the mixture's own shares.

    The sum of its tokens' weighted losses over the number of those that count: what the Trainer of
    transformers minimises, over all micro-batches of an update together.

    Args:
        model: the language model.
        classes: of tokens, that λ_t may weigh.
    """

    def loss(params: Weights, hyper: Hyper, batch: Batch) -> Scalar:
        weights = hyper.loss_weights[batch.domain] * batch.weight
        draws = jnp.asarray(batch.weight)
        weights *= _rated(hyper, batch, draws)
        losses, routing = _training_losses(model, classes, params, hyper, batch)
        return _balanced(jnp.mean(weights * losses), hyper, routing, draws, batch)

    return loss


def held_out_loss(model: LanguageModel) -> Callable[[Weights, Batch], Scalar]:
    """The target-weighted loss on a held-out batch, whose weights carry the target."""

    def objective(params: Weights, batch: Batch) -> Scalar:
        return jnp.mean(batch.weight * batch_losses(model, params, batch))

    return objective


class DomainLosses(NamedTuple):
    """What a batch adds to the losses of the domains; those are of the means over all batches.

    Attributes:
        weighted: target times loss.
        target: share of the domain in the objective.
    """

    weighted: Float[Array, "domains"]
    target: Float[Array, "domains"]


def domain_losses(model: LanguageModel, domains: int) -> Callable[[Weights, Batch], DomainLosses]:
    """The target-weighted losses of each domain by itself on a held-out batch.

    Args:
        model: the language model.
        domains: how many there are.
    """

    def objective(params: Weights, batch: Batch) -> DomainLosses:
        def of_domains(each: Float[Array, "batch"]) -> Float[Array, "domains"]:
            return jax.ops.segment_sum(each, jnp.asarray(batch.domain), domains) / len(each)

        weights = jnp.asarray(batch.weight)
        # The weights of a domain's sequences, over the number of all, sum to its target.
        target = of_domains(weights)
        return DomainLosses(of_domains(weights * batch_losses(model, params, batch)), target)

    return objective


def worst_case(found: DomainLosses, temperature: float) -> Scalar:
    """A smooth maximum over the target's domains: `T log Σ_d target_d exp(l_d / T)`.

    Args:
        found: the mean over all held-out batches.
        temperature: T, in nats.
    """
    weighted, target = found
    losses = jnp.where(target > 0, weighted / jnp.where(target > 0, target, 1), 0)
    return temperature * jax.nn.logsumexp(losses / temperature, b=target)
