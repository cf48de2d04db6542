"""Batches as a pure function of (seed, step), so that a training can be entered anywhere.

A loss is a mean over tokens, of whole batches, however they are split, and of all held-out batches
together: the sum of the losses of the tokens that count over their number. A sequence's loss is the
mean over its own, so that its weight carries how many these are: of sequences as long as each
other, the weights are those of sequences to the bit.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from metatune.data.domains import Corpus
from metatune.data.draws import Batch, Draws, DrawStream, generator
from metatune.recipe.schema import Average

# Offsets are multiples of 2^-32, so that batch size minus offset is exact in float64.
OFFSETS: Final = 2**32
SHARES_TOLERANCE: Final = 1e-6  # of their sum, for shares that were float32 once


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

    Where some tokens don't count, `weight` = n batch_size / c_d for a sequence of n that do: the
    mean over a batch of `share[domain] * weight * loss / (share · lengths)` is Σ_d share_d S_d /
    Σ_d share_d N_d, with S_d the sum of the losses of d's tokens, N_d their number, each by
    sequence: what the loss of a token comes to where sequences are drawn at these shares.

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
    return _training_batches(corpus, seed, counts, part, stratified=True)


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
    All weights are one; where some tokens don't count, n batch_size / Σ n for a sequence of n that
    do, so that the mean over a batch of `weight * loss` is that over its tokens.

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
    return _training_batches(corpus, seed, counts, part, stratified=False)


def heldout_batches(
    corpus: Corpus,
    split: Literal["validation", "test"],
    *,
    seed: tuple[int, ...],
    sequences: int,
    micro_batch: int,
    average: Average = "tokens",
    part: Part = WHOLE,
) -> list[Batch]:
    """Held-out batches whose weights carry the target.

    Every batch has the same number c_d of sequences of each domain of positive target, as equal
    as they can be. Windows are drawn without replacement over all batches; a split with fewer
    windows than are drawn begins again in another order.

    The mean over all batches of the means of `weight * loss` is exactly Σ_d target_d · (mean loss
    of domain d). Over its sequences, in each batch, that is so with `weight` = target_d · size /
    c_d; over its tokens, in all batches together, with n / (mean n of domain d) times as much for a
    sequence of n tokens that count. Where these differ, n is over how often the window is drawn:
    no token counts twice.

    Args:
        corpus: the domains.
        split: which of their held-out windows.
        seed: non-negative whole numbers, of any size and number.
        sequences: held-out sequences in all, rounded up to whole batches.
        micro_batch: sequences per batch: at most `sequences`, and at least one of each domain of
            positive target, is what a batch has.
        average: what a domain's loss is the mean over.
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
    draws = Draws(
        corpus, [getattr(domain, split) for domain in domains], seed, DrawStream[split.upper()]
    )
    domain = np.repeat(np.arange(len(counts)), counts)
    firsts = [index * counts for index in range(-(-sequences // size))]
    factors = np.ones((len(firsts), size))
    if average == "tokens" and draws.uneven:
        factors = _by_tokens(draws, firsts, counts).reshape(factors.shape)
    rows = part.rows(size)
    return [
        draws.batch(draws.windows(first, counts), weights[domain] * factor, rows)
        for first, factor in zip(firsts, factors, strict=True)
    ]


def _by_tokens(draws: Draws, firsts: list[np.ndarray], counts: np.ndarray) -> np.ndarray:
    """What a mean over tokens takes beside the weights of one over sequences, [all sequences].

    Args:
        draws: of the windows.
        firsts: of each batch, the number of the first draw of each domain.
        counts: draws of each domain in a batch.
    """
    drawn = [draws.windows(first, counts) for first in firsts]
    windows = np.concatenate(drawn)
    domain = windows[:, 0]
    lengths = np.concatenate([draws.lengths(each) for each in drawn]).astype(np.float64)
    if np.array_equal(lengths, _means(lengths, domain, len(counts))[domain]):
        return np.ones(len(lengths))
    _, which, times = np.unique(windows, axis=0, return_inverse=True, return_counts=True)
    lengths *= times.max() / times[which.ravel()]
    return lengths / _means(lengths, domain, len(counts))[domain]


def _evenly(total: int, parts: int) -> np.ndarray:
    """Whole numbers that sum to `total`, the larger ones first, int64 [parts]."""
    return total // parts + (np.arange(parts) < total % parts)


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
    offsets = generator(seed, DrawStream.OFFSET).integers(OFFSETS, size=len(shares)) / OFFSETS
    # Dividing by the last sum: the last edge, and that of domains of share zero before it, is
    # then exactly one.
    edges = np.cumsum(shares, axis=1)
    edges /= edges[:, -1:]
    below = np.ceil(total * edges - offsets[:, None]).astype(np.int64)
    return np.diff(below, axis=1, prepend=0)


def _training_batches(
    corpus: Corpus,
    seed: tuple[int, ...],
    counts: np.ndarray,
    part: Part,
    *,
    stratified: bool,
) -> Callable[[int], Batch]:
    """Batches with these counts of the domains at each step, [steps, domains]."""
    firsts = np.cumsum(counts, axis=0) - counts
    draws = Draws(corpus, [domain.train for domain in corpus.domains], seed, DrawStream.TRAIN)
    rows = part.rows(int(counts[0].sum()) if len(counts) else 0)

    def batch(step: int) -> Batch:
        windows = draws.windows(firsts[step], counts[step])
        domain = windows[:, 0]
        weight = (len(domain) / counts[step])[domain] if stratified else np.ones(len(domain))
        if not draws.uneven:
            return draws.batch(windows, weight, rows)
        lengths = draws.lengths(windows)
        if not stratified:
            return draws.batch(windows, weight * lengths / lengths.mean(), rows)
        drawn = draws.batch(windows, weight * lengths, rows)
        means = _means(lengths, domain, counts.shape[1]).astype(np.float32)
        return drawn._replace(lengths=np.tile(means, (len(drawn.tokens), 1)))

    return batch


def _means(values: np.ndarray, domain: np.ndarray, domains: int) -> np.ndarray:
    """The mean of the values of each domain, float64 [domains]; 0 of one without any."""
    counts = np.bincount(domain, minlength=domains)
    return np.bincount(domain, weights=values, minlength=domains) / np.maximum(counts, 1)
