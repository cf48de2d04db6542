"""A head that predicts the token two ahead, and its loss: a further term of the training loss.

From the features h that the unembedding makes next-token logits of, the head makes `h + W h`, and
the model's own unembedding logits of it. W starts at zero: the head begins with the model's guess
of the next token. It is trained with the model and left out of its checkpoints.

Source: Gloeckle et al., Better & Faster Large Language Models via Multi-token Prediction, ICML
2024, section 2; divided by the tokens that count as of DeepSeek-V3 Technical Report, 2024, eq. 24.
"""

from typing import Final

import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Integer

from metatune.inner.cross_entropy import token_losses
from metatune.models import ParameterNames
from metatune.tunables.shapes import Weights

PATH: Final = ("auxiliary_head", "weight")
"""Where W, [width, width], is among the trained parameters; joined by dots, its name.

Artefacts and checkpoints of trainings name it so, as of before the head was called otherwise.
"""
NAMES: Final = ParameterNames((".".join(PATH),), stacked=False)


def initial(width: int) -> Float32[Array, "{width} {width}"]:
    """W at the start: zeros."""
    return jnp.zeros((width, width), jnp.float32)


def second_next_losses(
    params: Weights,
    hidden: Float[Array, "batch seq width"],
    unembedding: Float[Array, "vocab width"],
    targets: Integer[Array, "batch seq"],
    documents: Integer[Array, "batch seq+1"] | None,
    *,
    softcap: float | None,
    chunk: int | None,
    parts: int = 1,
) -> Float[Array, "batch seq"]:
    """The cross entropy of each target as the head predicts it, from the position before its own.

    Args:
        params: of the model and the head.
        hidden: features after the final norm; those at i predict `targets` i.
        unembedding: the weights from features to logits, float32.
        targets: the tokens to predict.
        documents: which document a token is of, the inputs and the last target; None for one of
            all.
        softcap: of the logits, as of `token_losses`.
        chunk: tokens at a time, as of `token_losses`.
        parts: that the batch is cut into, likewise.

    Returns:
        In nats, of target i from the features at i - 1; zero for the first, and for
        one that is in another document than the token that those features are of.
    """
    weight = params[PATH[0]][PATH[1]]
    before = hidden[:, :-1]
    features = before + before @ weight.T.astype(before.dtype)
    losses = token_losses(
        features, unembedding, targets[:, 1:], softcap=softcap, chunk=chunk, parts=parts
    )
    if documents is not None:
        losses = jnp.where(documents[:, 2:] == documents[:, :-2], losses, 0)
    return jnp.pad(losses, ((0, 0), (1, 0)))
