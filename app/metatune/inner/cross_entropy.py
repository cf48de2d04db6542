"""Cross entropy of next tokens, from hidden features, its logits whole or a chunk at a time.

With it what else of the logits a training may be charged for: they exist here alone.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Integer

from metatune.hypergrad.shapes import Scalar
from metatune.models import map_rows, unembed


def token_losses(
    hidden: Float[Array, "batch seq hidden"],
    unembedding: Float[Array, "vocab hidden"],
    targets: Integer[Array, "batch seq"],
    *,
    softcap: float | None = None,
    chunk: int | None,
    parts: int = 1,
    terms: Mapping[str, Scalar] | None = None,
) -> Float[Array, "batch seq"]:
    """The loss of each token, `log Σ_v exp z_v - z_target` of its logits z, in nats.

    With terms, what they add to it: `label_smoothing (z_target - mean_v z_v)`, which makes it `(1 -
    ε) (-log p_target) + ε mean_v (-log p_v)`, and `z_loss (log Σ_v exp z_v)²`.

    With a chunk, logits of [chunk, vocab] exist at a time, and are computed again in the backward
    pass; without, those of all tokens, [batch, seq, vocab].

    Args:
        hidden: features after the final norm.
        unembedding: the weights from features to logits, float32.
        targets: the tokens to predict.
        softcap: c of the logits' `c tanh(z / c)`; None for none.
        chunk: tokens at a time, those of all sequences in one row; None for all of them.
        parts: that the batch is cut into, so many tokens of each at a time.
        terms: coefficients, scalars, of those terms that there are; None for none. What isn't of
            these logits is left to others.

    Returns:
        In at least float32.
    """

    def losses(
        hidden: Float[Array, "*rows hidden"],
        targets: Integer[Array, "*rows"],
        unembedding: Float[Array, "vocab hidden"],
        terms: Mapping[str, Scalar],
    ) -> Float[Array, "*rows"]:
        # Cast to the features' dtype here, so that its gradient sums over the chunks in float32.
        logits = unembed(hidden, unembedding, softcap=softcap)
        nll = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
        return _with_terms(nll, logits, targets, terms) if terms else nll

    shared = (unembedding, terms or {})
    if chunk is None:
        return losses(hidden, targets, *shared)
    merged = (hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1))
    return map_rows(losses, merged, chunk, parts, shared=shared).reshape(targets.shape)


def _with_terms(
    losses: Float[Array, "*rows"],
    logits: Float[Array, "*rows vocab"],
    targets: Integer[Array, "*rows"],
    terms: Mapping[str, Scalar],
) -> Float[Array, "*rows"]:
    """Losses and what terms add to them."""
    if "label_smoothing" in terms:
        target = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
        losses += terms["label_smoothing"] * (target - jnp.mean(logits, axis=-1))
    if "z_loss" in terms:
        losses += terms["z_loss"] * jax.nn.logsumexp(logits, axis=-1) ** 2
    return losses
