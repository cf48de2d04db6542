"""Batches as a pure function of (seed, step): random access, nothing to rewind.

Within a domain windows are drawn without replacement, epoch by epoch: draw n of a domain with N
windows is entry `n mod N` of the permutation of epoch `n div N`.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Literal, NamedTuple

import numpy as np

from metatune.data.domains import Corpus

Seed = tuple[int, ...]
Batches = Callable[[int], "Batch"]

ORDER, OFFSETS = 0, 1
"""Streams of randomness: the order of windows, the offsets of the systematic sampling."""


class Batch(NamedTuple):
    """Sequences of one step.

    Attributes:
        tokens: [batch, seq] int32.
        domain: the domain of each sequence, [batch] int32.
        weight: the weight of each sequence's loss, [batch] float32; its meaning depends on how the
            batch was drawn.
    """

    tokens: np.ndarray
    domain: np.ndarray
    weight: np.ndarray


def stratified_batches(corpus: Corpus, *, seed: Seed, batch_size: int) -> Batches:
    """Training batches with a fixed number of sequences of each domain.

    A sequence's weight is batch size / sequences of its domain, so that the mean over a batch of
    `share[domain] * weight * loss` is exactly `Σ_d share_d (mean loss of domain d)`.

    Args:
        corpus: the domains.
        seed: of the data order.
        batch_size: sequences per batch, at least one for each domain; the first domains have one
            more where it doesn't divide.
    """
    counts = _even(batch_size, len(corpus.domains))
    domain = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    weight = (batch_size / counts)[domain].astype(np.float32)
    windows = [d.train for d in corpus.domains]

    def batch(step: int) -> Batch:
        return Batch(_draw(windows, seed, step * counts, counts), domain, weight)

    return batch


def sampled_batches(
    corpus: Corpus, *, seed: Seed, batch_size: int, shares: np.ndarray
) -> Batches:
    """Training batches drawn at given shares; all weights are one.

    Sampling is systematic: one uniform offset u per step, and the points `(i + u) / batch_size`
    through the cumulative shares. A domain's count has expectation `batch_size * share` and lies
    within one of it.

    Args:
        corpus: the domains.
        seed: of the data order and of the offsets.
        batch_size: sequences per batch.
        shares: share of each domain at each step, [steps, domains] float64, rows sum to one.
    """
    offsets = np.random.Generator(_bits(seed, OFFSETS, 0, 0)).random((len(shares), 1))
    # How many points (i + u) / B lie below a cumulative share c: ceil(B c - u).
    below = np.ceil(batch_size * np.cumsum(shares, axis=1) - offsets).astype(int)
    below[:, -1] = batch_size
    counts = np.diff(np.clip(below, 0, batch_size), axis=1, prepend=0)
    drawn_before = np.cumsum(counts, axis=0) - counts
    weight = np.ones(batch_size, np.float32)
    windows = [d.train for d in corpus.domains]

    def batch(step: int) -> Batch:
        domain = np.repeat(np.arange(len(windows), dtype=np.int32), counts[step])
        return Batch(_draw(windows, seed, drawn_before[step], counts[step]), domain, weight)

    return batch


def heldout_batches(
    corpus: Corpus,
    split: Literal["outer", "report"],
    *,
    seed: Seed,
    sequences: int,
    micro_batch: int,
) -> list[Batch]:
    """Held-out batches of one shape, with the same number of sequences of each target domain.

    A sequence's weight is `target_d * batch size / sequences of domain d`, so that the mean over
    each batch of `weight * loss` is exactly `Σ_d target_d (mean loss of domain d)`.

    Args:
        corpus: the domains.
        split: which split to draw from; without replacement, and anew once all was drawn.
        seed: of the order.
        sequences: how many in all; rounded up to whole batches.
        micro_batch: sequences per batch; at least one for each domain with a target.
    """
    wanted = np.flatnonzero(corpus.target > 0)
    size = max(micro_batch, len(wanted))
    counts = np.zeros(len(corpus.domains), int)
    counts[wanted] = _even(size, len(wanted))
    domain = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    weight = (corpus.target * size / np.maximum(counts, 1))[domain].astype(np.float32)
    windows = [getattr(d, split) for d in corpus.domains]
    return [
        Batch(_draw(windows, seed, number * counts, counts), domain, weight)
        for number in range(-(-sequences // size))
    ]


def _even(total: int, parts: int) -> np.ndarray:
    """`total` as `parts` whole numbers as equal as possible, the larger ones first."""
    return total // parts + (np.arange(parts) < total % parts)


def _draw(
    windows: list[np.ndarray], seed: Seed, before: np.ndarray, counts: np.ndarray
) -> np.ndarray:
    """The next `counts[d]` windows of each domain d, of which `before[d]` were drawn already."""
    taken = []
    for number, (source, start, count) in enumerate(zip(windows, before, counts, strict=True)):
        draws = np.arange(start, start + count)
        order = partial(_permutation, seed, number, len(source))
        index = [order(int(epoch))[at] for epoch, at in zip(*divmod(draws, len(source)), strict=True)]
        taken.append(source[np.array(index, int)])
    return np.concatenate(taken).astype(np.int32)


@lru_cache(maxsize=64)
def _permutation(seed: Seed, domain: int, windows: int, epoch: int) -> np.ndarray:
    return np.random.Generator(_bits(seed, ORDER, domain, epoch)).permutation(windows)


def _bits(seed: Seed, stream: int, domain: int, epoch: int) -> np.random.Philox:
    # The length of the seed goes in as well: (1, 2) and (1, 2, 0) are different seeds.
    entropy = (len(seed), *seed, stream, domain, epoch)
    return np.random.Philox(np.random.SeedSequence(entropy))
