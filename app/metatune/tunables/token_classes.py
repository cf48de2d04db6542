"""Classes of tokens, whose losses can be weighted.

By what part of a document a token is of, by that document's label, by where in the sequence the
token stands, or by how frequent it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int64, Integer, UInt8

from metatune.data import Batch, Corpus, TokenClass
from metatune.recipe import schema


@dataclass(frozen=True, eq=False)
class TokenClasses:
    """What class each predicted token of a batch is of.

    Attributes:
        per: what decides.
        names: of the classes, by their numbers.
        table: the class of each predicted position, [sequence - 1], or of each token id,
            [vocabulary]; None for parts and labels of documents, which the data says.
    """

    per: Literal["class", "label", "position", "frequency"]
    names: tuple[str, ...]
    table: UInt8[np.ndarray, "positions"] | None = None

    def of(self, batch: Batch) -> Integer[Array, "batch places"] | None:
        """The class of each token but the first.

        None for parts of a document where all tokens are text.
        """
        if self.table is None:
            said = batch.labels if self.per == "label" else batch.classes
            return None if said is None else jnp.asarray(said)[:, 1:]
        targets = jnp.asarray(batch.tokens)[:, 1:]
        table = jnp.asarray(self.table)
        if self.per == "frequency":
            return table[targets]
        return jnp.broadcast_to(table[None], targets.shape)

    def tokens(self, corpus: Corpus) -> Int64[np.ndarray, "domains classes"]:
        """Predicted training tokens of each domain and class."""
        if self.table is None:
            return corpus.label_tokens() if self.per == "label" else corpus.class_tokens()
        cells = corpus.id_tokens() if self.per == "frequency" else corpus.position_tokens()
        return cells @ (self.table[:, None] == np.arange(len(self.names)))


PARTS = TokenClasses("class", tuple(each.name.lower() for each in TokenClass))
"""Parts of a document: text, prompt, completion, ..."""


def token_classes(
    spec: schema.LossWeightsSpec | None, corpus: Corpus, mixture: Sequence[float]
) -> TokenClasses:
    """The classes that a recipe's `tune.loss_weights` are of; parts of documents where of none.

    Args:
        spec: what is tuned.
        corpus: the domains.
        mixture: their shares of the tokens, by which frequencies are counted.
    """
    if spec is not None and spec.per == "label":
        return TokenClasses("label", corpus.labels)
    if spec is None or spec.per not in ("position", "frequency"):
        return PARTS
    names = spec.bucket_names
    if spec.per == "position":
        table = _stretches(corpus.sequence_length - 1, len(names))
    else:
        found = corpus.id_tokens()
        within = found / found.sum(axis=1, keepdims=True)
        # No product of matrices, whose rounding would tell apart tokens that are alike.
        shares = sum(share * row for share, row in zip(mixture, within, strict=True))
        table = _by_frequency(np.asarray(shares), len(names))
    return TokenClasses(spec.per, names, table)


def _stretches(positions: int, count: int) -> UInt8[np.ndarray, "{positions}"]:
    """The stretch that each of some positions is in, of equal ones."""
    return (np.arange(positions) * count // positions).astype(np.uint8)


def _by_frequency(shares: Float[np.ndarray, "ids"], count: int) -> UInt8[np.ndarray, "ids"]:
    """The bucket of each token id, of about equal shares of the tokens, the most frequent first.

    Ids are put in the order of their shares, the lower id first of those alike. An id is in the
    bucket that the middle of its stretch of the cumulative shares lies in; ids that don't occur
    are in the last.
    """
    order = np.argsort(-shares, kind="stable")
    ends = np.cumsum(shares[order])
    middles = (ends - shares[order] / 2) / ends[-1]
    buckets = np.empty(len(shares), np.uint8)
    buckets[order] = np.minimum(middles * count, count - 1).astype(np.uint8)
    return buckets
