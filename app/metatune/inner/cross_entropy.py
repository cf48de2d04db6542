"""Cross entropy of next tokens, from hidden features, its logits whole or a chunk at a time."""

import jax
import optax

from metatune.models import map_rows, unembed


def token_losses(
    hidden: jax.Array,
    unembedding: jax.Array,
    targets: jax.Array,
    *,
    softcap: float | None = None,
    chunk: int | None,
) -> jax.Array:
    """The loss of each token, `log Σ_v exp z_v - z_target` of its logits z, in nats.

    With a chunk, logits of [chunk, vocab] exist at a time, and are computed again in the backward
    pass; without, those of all tokens, [batch, seq, vocab].

    Args:
        hidden: features after the final norm, [batch, seq, hidden].
        unembedding: the weights from features to logits, [vocab, hidden] float32.
        targets: integers, [batch, seq].
        softcap: c of the logits' `c tanh(z / c)`; None for none.
        chunk: tokens at a time, those of all sequences in one row; None for all of them.

    Returns:
        [batch, seq] in at least float32.
    """

    def losses(hidden: jax.Array, targets: jax.Array) -> jax.Array:
        # Cast to the features' dtype here, so that its gradient sums over the chunks in float32.
        logits = unembed(hidden, unembedding, softcap=softcap)
        return optax.softmax_cross_entropy_with_integer_labels(logits, targets)

    if chunk is None:
        return losses(hidden, targets)
    merged = (hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1))
    return map_rows(losses, merged, chunk).reshape(targets.shape)
