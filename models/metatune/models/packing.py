"""Several documents in one sequence, each as if it stood alone."""

import jax
import jax.numpy as jnp


def restart(documents: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Positions that begin again with each document, and the documents' numbers.

    Args:
        documents: integers, [batch, seq]; a document is a stretch of equal ones.

    Returns:
        Positions within the document, and the document's number within the sequence, [batch, seq]
        each; stretches apart have different numbers though their integers be equal.
    """
    index = jnp.broadcast_to(jnp.arange(documents.shape[1])[None], documents.shape)
    begins = jnp.concatenate(
        [jnp.ones_like(documents[:, :1], bool), documents[:, 1:] != documents[:, :-1]], axis=1
    )
    start = jax.lax.cummax(jnp.where(begins, index, 0), axis=1)
    return index - start, jnp.cumsum(begins, axis=1)


def lengths(positions: jax.Array) -> jax.Array:
    """How many tokens the document of each token has, [batch, seq].

    Args:
        positions: within the documents, as of `restart`.
    """
    index = jnp.broadcast_to(jnp.arange(positions.shape[1])[None], positions.shape)
    ends = jnp.pad(positions[:, 1:] == 0, ((0, 0), (0, 1)), constant_values=True)
    last = jax.lax.cummin(jnp.where(ends, index, positions.shape[1]), axis=1, reverse=True)
    return last - (index - positions) + 1
