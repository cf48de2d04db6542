"""Batches as a pure function of (seed, step), so that a training can be entered anywhere.

Within a domain, windows are drawn without replacement, epoch by epoch: draw n of a domain with N
windows is place n mod N of a permutation that belongs to the seed, the domain and the epoch n // N.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import Final, Literal, NamedTuple

import numpy as np

from metatune.data.domains import Corpus
from metatune.data.randomness import generator
from metatune.data.windows import Rows, Windows

# Offsets are multiples of 2^-32, so that batch size minus offset is exact in float64.
OFFSETS: Final = 2**32
SHARES_TOLERANCE: Final = 1e-6  # of their sum, for shares that were float32 once


class Batch(NamedTuple):
    """Sequences with what the loss needs to know of them; what isn't needed is None.

    Attributes:
        tokens: int32 [batch, sequence_length].
        domain: index of each sequence's domain, among those that are trained on or, held out, that
            are measured; int32 [batch]; ascending.
        weight: factor of each sequence's loss, float32 [batch].
        documents: which document of its sequence a token is of, int32 [batch, sequence_length];
            None where attention and loss may cross from one into the next.
        mask: 1 where a token is predicted from those before it and counts, else 0; at least one
            of each sequence does; float32 [batch, sequence_length - 1]. None where all do.
        classes: the `TokenClass` of each token, uint8 [batch, sequence_length]; None where all
            are text.
        labels: which of the corpus' labels each token's document has, uint8 [batch,
            sequence_length]; None where documents have none.
    """

    tokens: np.ndarray
    domain: np.ndarray
    weight: np.ndarray
    documents: np.ndarray | None = None
    mask: np.ndarray | None = None
    classes: np.ndarray | None = None
    labels: np.ndarray | None = None


@dataclass(frozen=True)
class Part:
    """The rows of every batch that one process reads: as many as each of the others.

    Attributes:
        index: which of the parts, from 0.
        count: how many there are.
    """

    index: int = 0
    count: int = 1

    def rows(self, batch_size: int) -> tuple[int, int]:
        """First row, and one past the last.

        Raises:
            ValueError: there is no such part, or the batch can't be divided into equal ones.
        """
        if not 0 <= self.index < self.count:
            raise ValueError(f"part {self.index} of {self.count}; must be 0 to {self.count - 1}")
        if batch_size % self.count:
            raise ValueError(
                f"a batch of {batch_size} sequences has no {self.count} equal parts; choose a "
                f"multiple of {self.count}"
            )
        size = batch_size // self.count
        return self.index * size, (self.index + 1) * size


WHOLE: Final = Part()


class Stream(IntEnum):
    """What randomness is for; different purposes never share random numbers."""

    TRAIN = 0
    OUTER = 1
    REPORT = 2
    OFFSET = 3


def stratified_batches(
    corpus: Corpus,
    *,
    seed: tuple[int, ...],
    batch_size: int,
    shares: np.ndarray,
    part: Part = WHOLE,
) -> Callable[[int], Batch]:
    """Training batches whose loss can be differentiated in the shares, with sequences of all.

    With c_d sequences of domain d and `weight` = batch_size / c_d, the mean over a batch of
    `share[domain] * weight * loss` is exactly Σ_d share_d · (mean loss of domain d), whatever the
    counts. These follow the given shares as closely as one sequence of every domain allows, so
    that the mean is as noisy as that of a sampled batch.

    Args:
        corpus: the domains.
        seed: non-negative whole numbers, of any size and number.
        batch_size: sequences per batch.
        shares: float64 [steps, domains]; each row sums to one.
        part: the rows to read, the same as those of the whole batch.

    Returns:
        The batch of a step, `0 <= step < steps`.

    Raises:
        ValueError: there are more domains than sequences in a batch; `shares` has another shape,
            or a row isn't a distribution; the batch can't be divided.
    """
    shares = _distributions(shares, len(corpus.domains))
    beyond_one = batch_size - len(corpus.domains)
    if beyond_one < 0:
        raise ValueError(
            f"batch_size is {batch_size}; a stratified batch needs at least one sequence of each "
            f"domain, {len(corpus.domains)}"
        )
    wanted = np.maximum(batch_size * shares - 1, 0)
    # No share wants more than its one sequence only if there are no more.
    wanted = np.where(wanted.sum(axis=1, keepdims=True) > 0, wanted, 1.0)
    counts = 1 + _systematic(wanted / wanted.sum(axis=1, keepdims=True), seed, beyond_one)
    return _training_batches(corpus, seed, counts, batch_size / counts, part)


def sampled_batches(
    corpus: Corpus,
    *,
    seed: tuple[int, ...],
    batch_size: int,
    shares: np.ndarray,
    part: Part = WHOLE,
) -> Callable[[int], Batch]:
    """Training batches sampled from the domains at shares that change over the training.

    Systematic sampling: with one offset u, uniform on [0, 1), for each step, sequence i is of the
    domain in whose stretch of the cumulative shares (u + i) / batch_size lies. The number of
    sequences of a domain is batch_size · share in the mean, and never one or more away from it.
    All weights are one.

    Args:
        corpus: the domains.
        seed: non-negative whole numbers, of any size and number.
        batch_size: sequences per batch.
        shares: float64 [steps, domains]; each row sums to one.
        part: the rows to read, the same as those of the whole batch.

    Returns:
        The batch of a step, `0 <= step < steps`.

    Raises:
        ValueError: `shares` has another shape, or a row isn't a distribution; the batch can't be
            divided.
    """
    shares = _distributions(shares, len(corpus.domains))
    counts = _systematic(shares, seed, batch_size)
    return _training_batches(corpus, seed, counts, np.ones(counts.shape), part)


def heldout_batches(
    corpus: Corpus,
    split: Literal["outer", "report"],
    *,
    seed: tuple[int, ...],
    sequences: int,
    micro_batch: int,
    part: Part = WHOLE,
) -> list[Batch]:
    """Held-out batches whose weights carry the target.

    Every batch has the same number c_d of sequences of each domain of positive target, as equal
    as they can be. With `weight` = target_d · size / c_d, the mean over a batch of `weight * loss`
    is exactly Σ_d target_d · (mean loss of domain d). Windows are drawn without replacement over
    all batches; a split with fewer windows than are drawn begins again in another order.

    Args:
        corpus: the domains.
        split: which of their held-out windows.
        seed: non-negative whole numbers, of any size and number.
        sequences: held-out sequences in all, rounded up to whole batches.
        micro_batch: sequences per batch: at most `sequences`, and at least one of each domain of
            positive target, is what a batch has.
        part: the rows to read of each.

    Returns:
        The batches, all of one shape.

    Raises:
        ValueError: a batch can't be divided.
    """
    domains, target = corpus.measured, corpus.target_of(split)
    members = np.flatnonzero(target)
    size = max(min(micro_batch, sequences), len(members))
    counts, weights = np.zeros(len(domains), np.int64), np.zeros(len(domains))
    counts[members] = _evenly(size, len(members))
    weights[members] = target[members] * size / counts[members]
    draw = _drawing([getattr(domain, split) for domain in domains], seed, Stream[split.upper()])
    rows = part.rows(size)
    return [
        _batch(corpus, draw, index * counts, counts, weights, rows)
        for index in range(-(-sequences // size))
    ]


def _evenly(total: int, parts: int) -> np.ndarray:
    """Whole numbers that sum to `total`, the larger ones first, int64 [parts]."""
    return total // parts + (np.arange(parts) < total % parts)


def _generator(seed: tuple[int, ...], *key: int) -> np.random.Generator:
    """Random numbers of their own for every seed and key."""
    # SeedSequence fills a short seed up with zeros: without its length, (1,) would be (1, 0).
    return generator((len(seed), *seed), key)


def _distributions(shares: np.ndarray, domains: int) -> np.ndarray:
    """Checks shares, [steps, domains] float64."""
    shares = np.asarray(shares, np.float64)
    if shares.ndim != 2 or shares.shape[1] != domains:
        raise ValueError(f"shares are of shape {shares.shape}; must be [steps, {domains}]")
    sums = shares.sum(axis=1)
    sound = (shares >= 0).all(axis=1) & (np.abs(sums - 1) <= SHARES_TOLERANCE)
    if not sound.all():
        step = int(np.argmin(sound))
        raise ValueError(
            f"shares of step {step} are {shares[step].tolist()}; must be 0 or above and sum to one"
        )
    return shares


def _systematic(shares: np.ndarray, seed: tuple[int, ...], total: int) -> np.ndarray:
    """Counts of each domain in `total` systematic draws at each step, [steps, domains]."""
    offsets = _generator(seed, Stream.OFFSET).integers(OFFSETS, size=len(shares)) / OFFSETS
    # Dividing by the last sum: the last edge, and that of domains of share zero before it, is
    # then exactly one.
    edges = np.cumsum(shares, axis=1)
    edges /= edges[:, -1:]
    below = np.ceil(total * edges - offsets[:, None]).astype(np.int64)
    return np.diff(below, axis=1, prepend=0)


def _training_batches(
    corpus: Corpus, seed: tuple[int, ...], counts: np.ndarray, weights: np.ndarray, part: Part
) -> Callable[[int], Batch]:
    """Batches with these counts and weights of the domains at each step, [steps, domains]."""
    firsts = np.cumsum(counts, axis=0) - counts
    draw = _drawing([domain.train for domain in corpus.domains], seed, Stream.TRAIN)
    rows = part.rows(int(counts[0].sum()) if len(counts) else 0)
    return lambda step: _batch(corpus, draw, firsts[step], counts[step], weights[step], rows)


def _drawing(
    windows: list[Windows], seed: tuple[int, ...], stream: Stream
) -> Callable[[int, int, int], Rows]:
    """Draws without replacement, epoch by epoch.

    Args:
        windows: of each domain.
        seed: of the permutations.
        stream: what is drawn.

    Returns:
        `(domain, first, count)` to draws number `first` up to `first + count` of a domain.
    """

    @lru_cache(maxsize=2 * len(windows))  # a batch rarely touches more than two epochs of each
    def order(domain: int, epoch: int) -> np.ndarray:
        return _generator(seed, stream, domain, epoch).permutation(len(windows[domain]))

    def draw(domain: int, first: int, count: int) -> Rows:
        total, last = len(windows[domain]), first + count
        places = [
            order(domain, epoch)[max(first - epoch * total, 0) : last - epoch * total]
            for epoch in range(first // total, -(-last // total))
        ]
        return windows[domain].take(np.concatenate(places))

    return draw


def _batch(
    corpus: Corpus,
    draw: Callable[[int, int, int], Rows],
    firsts: np.ndarray,
    counts: np.ndarray,
    weights: np.ndarray,
    rows: tuple[int, int],
) -> Batch:
    """Some rows of the batch of `counts[d]` draws from number `firsts[d]` on, of `weights[d]`."""
    ends = np.cumsum(counts)
    begins = np.clip(ends - counts, *rows)  # of each domain's rows, among those that are wanted
    sizes = np.clip(ends, *rows) - begins
    firsts = firsts + begins - (ends - counts)
    drawn = [draw(int(d), int(firsts[d]), int(sizes[d])) for d in np.flatnonzero(sizes)]
    return Batch(
        tokens=np.concatenate([each.tokens for each in drawn]),
        domain=np.repeat(np.arange(len(counts), dtype=np.int32), sizes),
        weight=np.repeat(weights, sizes).astype(np.float32),
        documents=_joined([each.documents for each in drawn]),
        mask=_joined([each.mask for each in drawn]),
        classes=_joined([each.said_classes for each in drawn]) if corpus.classed else None,
        labels=_joined([each.labels for each in drawn]),
    )


def _joined(arrays: list[np.ndarray | None]) -> np.ndarray | None:
    """Arrays one after another; None where there are none, which is then so for all domains."""
    there = [array for array in arrays if array is not None]
    return np.concatenate(there) if there else None
