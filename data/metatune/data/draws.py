"""What batches are made of: draws without replacement from the windows of each domain.

Within a domain, windows are drawn without replacement, epoch by epoch: draw n of a domain with N
windows is place n mod N of a permutation that belongs to the seed, the domain and the epoch n // N.
"""

from collections.abc import Iterator
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from metatune.data import randomness
from metatune.data.domains import Corpus
from metatune.data.windows import Windows


class Batch(NamedTuple):
    """Sequences with what the loss needs to know of them; what isn't needed is None.

    Attributes:
        tokens: int32 [batch, sequence_length].
        domain: index of each sequence's domain, among those that are trained on or, held out, that
            are measured; int32 [batch]; ascending.
        weight: factor of the mean loss of each sequence's tokens, float32 [batch].
        documents: which document of its sequence a token is of, int32 [batch, sequence_length];
            None where attention and loss may cross from one into the next.
        mask: 1 where a token is predicted from those before it and counts, else 0; at least one
            of each sequence does; float32 [batch, sequence_length - 1]. None where all do.
        classes: the `TokenClass` of each token, uint8 [batch, sequence_length]; None where all
            are text.
        labels: which of the corpus' labels each token's document has, uint8 [batch,
            sequence_length]; None where documents have none.
        lengths: of a stratified batch, how many tokens count in a sequence of each domain, their
            mean over the whole batch, float32 [batch, domains], each row the same; None where all
            tokens of all sequences do.
    """

    tokens: np.ndarray
    domain: np.ndarray
    weight: np.ndarray
    documents: np.ndarray | None = None
    mask: np.ndarray | None = None
    classes: np.ndarray | None = None
    labels: np.ndarray | None = None
    lengths: np.ndarray | None = None


class DrawStream(IntEnum):
    """What randomness is for; different purposes never share random numbers."""

    TRAIN = 0
    VALIDATION = 1
    TEST = 2
    OFFSET = 3


class Draws:
    """Draws without replacement, epoch by epoch, from the windows of each domain."""

    def __init__(
        self, corpus: Corpus, windows: list[Windows], seed: tuple[int, ...], stream: DrawStream
    ):
        """Draws nothing yet.

        Args:
            corpus: the domains.
            windows: of each of them.
            seed: of the permutations.
            stream: what is drawn.
        """
        self._windows, self._classed = windows, corpus.classed

        # A batch rarely touches more than two epochs of each.
        @lru_cache(maxsize=2 * len(windows))
        def order(domain: int, epoch: int) -> np.ndarray:
            return generator(seed, stream, domain, epoch).permutation(len(windows[domain]))

        self._order = order

    @property
    def uneven(self) -> bool:
        """Whether there are tokens that don't count, so that sequences may differ in those."""
        return not all(windows.all_count for windows in self._windows)

    def windows(self, firsts: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Domain, and place among its windows, of each sequence of a batch, int64 [batch, 2].

        Args:
            firsts: numbers of the first draw of each domain, [domains].
            counts: draws of each domain, [domains].
        """
        found = [
            np.stack([np.full(count, domain), self._places(domain, first, count)], axis=1)
            for domain, (first, count) in enumerate(zip(firsts, counts, strict=True))
            if count
        ]
        return np.concatenate(found)

    def lengths(self, windows: np.ndarray) -> np.ndarray:
        """Tokens that count in each of some windows, int64 [batch].

        Args:
            windows: domains, ascending, and places, [batch, 2].
        """
        return np.concatenate(
            [self._windows[d].counted_tokens(places) for d, places in _by_domain(windows)]
        )

    def batch(self, windows: np.ndarray, weights: np.ndarray, rows: tuple[int, int]) -> Batch:
        """Some rows of a batch.

        Args:
            windows: of the whole batch, as of `lengths`.
            weights: of its sequences, [batch].
            rows: the first of them, and one past the last.
        """
        windows = windows[slice(*rows)]
        drawn = [self._windows[d].take(places) for d, places in _by_domain(windows)]
        return Batch(
            tokens=np.concatenate([each.tokens for each in drawn]),
            domain=windows[:, 0].astype(np.int32),
            weight=weights[slice(*rows)].astype(np.float32),
            documents=_joined([each.documents for each in drawn]),
            mask=_joined([each.mask for each in drawn]),
            classes=_joined([each.said_classes for each in drawn]) if self._classed else None,
            labels=_joined([each.labels for each in drawn]),
        )

    def _places(self, domain: int, first: int, count: int) -> np.ndarray:
        """Of draws number `first` up to `first + count` of a domain, among its windows."""
        total, last = len(self._windows[domain]), first + count
        return np.concatenate(
            [
                self._order(domain, int(epoch))[
                    max(first - epoch * total, 0) : last - epoch * total
                ]
                for epoch in range(first // total, -(-last // total))
            ]
        )


def _by_domain(windows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """The domains of some windows, and the places of theirs."""
    domains, begins = np.unique(windows[:, 0], return_index=True)
    yield from zip(domains.tolist(), np.split(windows[:, 1], begins[1:]), strict=True)


def _joined(arrays: list[np.ndarray | None]) -> np.ndarray | None:
    """Arrays one after another; None where there are none, which is then so for all domains."""
    there = [array for array in arrays if array is not None]
    return np.concatenate(there) if there else None


def generator(seed: tuple[int, ...], *key: int) -> np.random.Generator:
    """Random numbers of their own for every seed and key."""
    # SeedSequence fills a short seed up with zeros: without its length, (1,) would be (1, 0).
    return randomness.generator((len(seed), *seed), key)
