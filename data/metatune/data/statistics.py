"""What a domain holds, and how often a training reads it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

FEW_REPEATS: Final = 4
"""Up to so many epochs, repeated text is worth almost as much as fresh text.

Source: Muennighoff et al., Scaling Data-Constrained Language Models, 2023, section 5.
"""


@dataclass(frozen=True)
class Statistics:
    """What a domain holds, all splits together.

    Attributes:
        documents: pieces of a text file, or records with text.
        tokens: with the end of each document, and with those that fill no window.
        bytes: of text in UTF-8.
        duplicates: documents that are exact copies of earlier ones of the domain.
        shared: documents that stand in other domains too.
        replaced: bytes that weren't UTF-8 and became U+FFFD.
        empty: records without text, left out.
    """

    documents: int
    tokens: int
    bytes: int
    duplicates: int = 0
    shared: int = 0
    replaced: int = 0
    empty: int = 0

    @property
    def bytes_per_token(self) -> float:
        """How much text a token stands for."""
        return self.bytes / self.tokens


def copies(hashes: Mapping[str, np.ndarray]) -> dict[str, tuple[int, int]]:
    """Exact copies of documents within and across domains.

    Args:
        hashes: of the documents of each domain, uint64 [documents].

    Returns:
        For each domain the number of documents that copy earlier ones of it, and of those that
        stand in other domains too. Both fall on the same side of a split as what they copy.
    """
    distinct = {name: np.unique(its) for name, its in hashes.items()}
    every, times = np.unique(
        np.concatenate([np.empty(0, np.uint64), *distinct.values()]), return_counts=True
    )
    in_several = every[times > 1]
    return {
        name: (len(its) - len(distinct[name]), int(np.isin(its, in_several).sum()))
        for name, its in hashes.items()
    }


def repeats(train_windows: Sequence[int], shares: np.ndarray, batch_size: int) -> np.ndarray:
    """How often a training reads each domain, in epochs, float64 [domains].

    Args:
        train_windows: sequences of each domain to train on.
        shares: of the domains in the batches, [steps, domains].
        batch_size: sequences per step.
    """
    return batch_size * np.asarray(shares, np.float64).sum(axis=0) / np.asarray(train_windows)
