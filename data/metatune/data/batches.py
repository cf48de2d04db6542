"""Batches as a pure function of (seed, step), so that a training can be entered anywhere.

Within a domain, windows are drawn without replacement, epoch by epoch: draw n of a domain with N
windows is place n mod N of a permutation that belongs to the seed, the domain and the epoch n // N.
"""

from collections.abc import Callable
from enum import IntEnum
from functools import lru_cache
from typing import Final, Literal, NamedTuple

import numpy as np

from metatune.data.domains import Corpus

# Offsets are multiples of 2^-32, so that batch size minus offset is exact in float64.
OFFSETS: Final = 2**32
SHARES_TOLERANCE: Final = 1e-6  # of their sum, for shares that were float32 once


class Batch(NamedTuple):
    """Sequences with what the loss needs to know of them.

    Attributes:
        tokens: int32 [batch, sequence_length].
        domain: index of each sequence's domain, int32 [batch]; ascending.
        weight: factor of each sequence's loss, float32 [batch].
    """

    tokens: np.ndarray
    domain: np.ndarray
    weight: np.ndarray


class Stream(IntEnum):
    """What randomness is for; different purposes never share random numbers."""

    TRAIN = 0
    OUTER = 1
    REPORT = 2
    OFFSET = 3


def stratified_batches(
    corpus: Corpus, *, seed: tuple[int, ...], batch_size: int, shares: np.ndarray
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

    Returns:
        The batch of a step, `0 <= step < steps`.

    Raises:
        ValueError: there are more domains than sequences in a batch; `shares` has another shape,
            or a row isn't a distribution.
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
    return _training_batches(corpus, seed, counts, batch_size / counts)


def sampled_batches(
    corpus: Corpus, *, seed: tuple[int, ...], batch_size: int, shares: np.ndarray
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

    Returns:
        The batch of a step, `0 <= step < steps`.

    Raises:
        ValueError: `shares` has another shape, or a row isn't a distribution.
    """
    shares = _distributions(shares, len(corpus.domains))
    counts = _systematic(shares, seed, batch_size)
    return _training_batches(corpus, seed, counts, np.ones(counts.shape))


def heldout_batches(
    corpus: Corpus,
    split: Literal["outer", "report"],
    *,
    seed: tuple[int, ...],
    sequences: int,
    micro_batch: int,
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

    Returns:
        The batches, all of one shape.
    """
    members = np.flatnonzero(corpus.target)
    size = max(min(micro_batch, sequences), len(members))
    counts, weights = np.zeros(len(corpus.domains), np.int64), np.zeros(len(corpus.domains))
    counts[members] = _evenly(size, len(members))
    weights[members] = corpus.target[members] * size / counts[members]
    draw = _drawing(
        [getattr(domain, split) for domain in corpus.domains], seed, Stream[split.upper()]
    )
    batches = -(-sequences // size)
    return [_batch(draw, index * counts, counts, weights) for index in range(batches)]


def _evenly(total: int, parts: int) -> np.ndarray:
    """Whole numbers that sum to `total`, the larger ones first, int64 [parts]."""
    return total // parts + (np.arange(parts) < total % parts)


def _generator(seed: tuple[int, ...], *key: int) -> np.random.Generator:
    """Random numbers of their own for every seed and key."""
    # SeedSequence fills a short seed up with zeros: without its length, (1,) would be (1, 0).
    sequence = np.random.SeedSequence((len(seed), *seed), spawn_key=key)
    return np.random.Generator(np.random.Philox(sequence))


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
    corpus: Corpus, seed: tuple[int, ...], counts: np.ndarray, weights: np.ndarray
) -> Callable[[int], Batch]:
    """Batches with these counts and weights of the domains at each step, [steps, domains]."""
    firsts = np.cumsum(counts, axis=0) - counts
    draw = _drawing([domain.train for domain in corpus.domains], seed, Stream.TRAIN)
    return lambda step: _batch(draw, firsts[step], counts[step], weights[step])


def _drawing(
    windows: list[np.ndarray], seed: tuple[int, ...], stream: Stream
) -> Callable[[int, int, int], np.ndarray]:
    """Draws without replacement, epoch by epoch.

    Args:
        windows: of each domain, [windows, sequence_length].
        seed: of the permutations.
        stream: what is drawn.

    Returns:
        `(domain, first, count)` to draws number `first` up to `first + count` of a domain,
        [count, sequence_length].
    """

    @lru_cache(maxsize=2 * len(windows))  # a batch rarely touches more than two epochs of each
    def order(domain: int, epoch: int) -> np.ndarray:
        return _generator(seed, stream, domain, epoch).permutation(len(windows[domain]))

    def draw(domain: int, first: int, count: int) -> np.ndarray:
        total = len(windows[domain])
        places = [order(domain, n // total)[n % total] for n in range(first, first + count)]
        return windows[domain][np.array(places, np.int64)]

    return draw


def _batch(
    draw: Callable[[int, int, int], np.ndarray],
    firsts: np.ndarray,
    counts: np.ndarray,
    weights: np.ndarray,
) -> Batch:
    """The batch of `counts[d]` draws from number `firsts[d]` on, each of `weights[d]`."""
    drawn = [
        draw(domain, int(first), int(count))
        for domain, (first, count) in enumerate(zip(firsts, counts, strict=True))
    ]
    domain = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    weight = np.repeat(weights, counts).astype(np.float32)
    return Batch(np.concatenate(drawn).astype(np.int32), domain, weight)
