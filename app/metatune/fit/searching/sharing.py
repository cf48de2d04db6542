"""Adaptive sharing of learning rates: from one for all cells, split where they pull apart.

A cell is a group of parameters in a window. The meta-parameters stay those of all cells, and so do
programs and checkpoints; cells of one block move together, because each gets the sum of the block's
hypergradients, which is the hypergradient of the value that they share.

After a period of outer steps every block is tested for each way to divide it in two, between
windows or by `tunables.divisions`. Two sides pull apart as much as the weaker of their mean
hypergradients, over its standard error, if the two are of opposite signs. The block is split at the
largest pull where that is too large for noise: were all its cells at an optimum that they share,
hypergradients would be noise about zero, and as likely with the opposite sign, whole outer steps at
a time; so all choices of signs tell how often noise pulls as far (a randomisation test; Fisher, The
Design of Experiments, 1935, section 21), however cells go together and whatever has been tried.
Sides that pull in one direction stay together, however much more one of them pulls: a common value
can follow both. A split is taken back where, over a period, the two values differ by no more than
they waver and are pulled together on balance.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from metatune.fit.searching.search import Search
from metatune.inner import InnerTraining
from metatune.tunables import Groups, TunableLearningRates
from metatune.tunables.divisions import described, divisions

KEY = TunableLearningRates.key


class Shared(NamedTuple):
    """What is shared, and what has been seen in this period.

    Attributes:
        partition: the block of each cell, by the number of its first cell, [windows, groups].
        gradients: hypergradients of the period, penalties included, [every, windows, groups].
        values: the meta-parameters that they were taken at, [every, windows, groups].
    """

    partition: Any
    gradients: Any
    values: Any


@dataclass(frozen=True, eq=False)
class Sharing:
    """How cells share learning rates.

    Attributes:
        groups: the groups of parameters.
        windows: of the training.
        every: outer steps of a period.
        threshold: standard deviations of a normal distribution that pulls apart must be as rare as,
            and that the difference of two values that are merged may be of its own.
    """

    groups: Groups
    windows: int
    every: int
    threshold: float

    def begin(self) -> Shared:
        """All cells in one block, nothing seen."""
        shape = self.windows, self.groups.size
        nothing = np.zeros((self.every, *shape), np.float32)
        return Shared(np.zeros(shape, np.int32), nothing, nothing)

    def sum_blocks(self, search: Search, gradient: Mapping[str, Any]) -> dict[str, Any]:
        """A hypergradient with `Σ g / √n` at each of the n cells of a block.

        So a block counts in a norm as one meta-parameter with the hypergradient `Σ g`: what clips
        is that of the coarser training. `counts` is what then makes it `Σ g`.
        """
        partition = np.asarray(search.shared.partition)
        sums = _sums(partition, np.asarray(gradient[KEY], np.float64)) / self._roots(partition)
        return {**gradient, KEY: jnp.asarray(sums, jnp.asarray(gradient[KEY]).dtype)}

    def counts(self, search: Search) -> dict[str, Any]:
        """What the outer optimizer multiplies clipped hypergradients by: √n at each cell."""
        roots = self._roots(np.asarray(search.shared.partition))
        return {KEY: jnp.asarray(roots, search.eta[KEY].dtype)}

    def observe(self, search: Search, gradient: Mapping[str, Any]) -> Search:
        """The search with the hypergradient of this outer step, of every cell, written down."""
        at = search.step % self.every
        gradients, values = (np.array(seen) for seen in search.shared[1:])
        gradients[at], values[at] = gradient[KEY], search.eta[KEY]
        return search._replace(shared=Shared(search.shared.partition, gradients, values))

    def revise(self, search: Search) -> tuple[Search, list[dict[str, Any]]]:
        """The search after a period's last outer step, with blocks split and merged.

        After a split both sides go on from the common value and the common state of the outer
        optimizer. After a merge all cells have the mean of values and of states. Between periods
        nothing changes. An average of the meta-parameters stays what it is.

        Args:
            search: its `step` is that of outer steps done.

        Returns:
            The search, and what has changed.
        """
        if search.step % self.every:
            return search, []
        shared = Shared(*(np.asarray(array) for array in search.shared))
        partition = shared.partition.copy()
        changes, merged = [], set()
        for block, other in _siblings(search.changes):
            if (change := self._merge(shared, block, other)) is not None:
                changes.append({"step": search.step - 1, **change})
                partition[partition == other] = block
                merged |= {block, other}
        for block in sorted(set(shared.partition.ravel().tolist()) - merged):
            if (found := self._split(shared, block)) is not None:
                other, change = found
                changes.append({"step": search.step - 1, **change})
                partition[other] = change["blocks"][1]
        eta, opt_state = search.eta, search.opt_state
        if merged:
            eta, opt_state = _averaged(eta, partition), _averaged(opt_state, partition)
        search = search._replace(
            eta=eta,
            opt_state=opt_state,
            shared=self.begin()._replace(partition=partition),
            changes=(*search.changes, *changes),
        )
        return search, changes

    def _split(self, shared: Shared, block: int) -> tuple[np.ndarray, dict[str, Any]] | None:
        """The cells that leave a block, and how that is recorded; None if it stays whole."""
        inside = shared.partition == block
        sides = list(self._sides(inside))
        if not sides:
            return None
        rests = [inside & ~side for side in sides]
        best, p = apart(_summed(shared, sides), _summed(shared, rests))
        if p > NormalDist().cdf(-self.threshold):
            return None
        other = sides[best]
        if other.ravel()[block]:  # the first cell, which a block is named by
            other = inside & ~other
        staying = inside & ~other
        return other, {
            "change": "split",
            "blocks": [block, int(np.flatnonzero(other)[0])],
            "into": [self._words(staying), self._words(other)],
            "p": p,
        }

    def _merge(self, shared: Shared, block: int, other: int) -> dict[str, Any] | None:
        """How a split that is taken back is recorded; None if it isn't."""
        sides = [shared.partition == each for each in (block, other)]
        values = shared.values.reshape(self.every, -1).astype(np.float64)
        gap = values[:, block] - values[:, other]
        difference, spread = float(gap.mean()), float(gap.std(ddof=1))
        # A descent follows -g: the difference shrinks where the higher side has the larger g.
        one, two = (_pulls(np.ones((1, self.every)), _summed(shared, [side])) for side in sides)
        together = float((one - two)[0, 0]) * np.sign(difference) >= 0
        if not together or abs(difference) > self.threshold * spread:
            return None
        return {
            "change": "merge",
            "blocks": [block, other],
            "into": [self._words(sides[0] | sides[1])],
            "difference": difference,
            "spread": spread,
        }

    def _sides(self, inside: np.ndarray) -> Iterator[np.ndarray]:
        """One side of each way to divide a block, as masks of cells."""
        windows, groups = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
        for first in windows[1:]:
            yield inside & (np.arange(self.windows) < first)[:, None]
        for side in divisions(self.groups, groups.tolist()):
            yield inside & np.isin(np.arange(self.groups.size), side)[None, :]

    def _words(self, cells: np.ndarray) -> str:
        """A block in words; it is always some windows of some groups."""
        windows, groups = (np.flatnonzero(cells.any(axis)) for axis in (1, 0))
        what = described(self.groups, groups.tolist())
        if len(windows) == self.windows:
            return what
        first, last = windows[0] + 1, windows[-1] + 1
        return f"{what}, window {first}" + (f" to {last}" if last > first else "")

    def _roots(self, partition: np.ndarray) -> np.ndarray:
        return np.sqrt(_sums(partition, np.ones(partition.shape)))


def sharing(training: InnerTraining) -> Sharing | None:
    """How a recipe shares learning rates; None if it doesn't."""
    rates = training.recipe.tune.learning_rates
    if rates is None or rates.sharing is None:
        return None
    for tunable in training.tunables:
        if isinstance(tunable, TunableLearningRates) and isinstance(tunable.cells, Groups):
            spec = rates.sharing
            return Sharing(tunable.cells, tunable.windows, spec.every, spec.threshold)
    raise ValueError("a sound recipe shares rates of groups of parameters")


def record(search: Search) -> dict[str, Any]:
    """What is shared, as plain JSON values."""
    partition = np.asarray(search.shared.partition)
    return {
        "blocks": len(np.unique(partition)),
        "cells": partition.size,
        "partition": partition.tolist(),
        "changes": list(search.changes),
    }


def apart(one: np.ndarray, other: np.ndarray) -> tuple[int, float]:
    """Which of several pairs of sides pull apart most, and how often noise alone pulls as far.

    Args:
        one: hypergradients of one side of each pair, [outer steps, pairs].
        other: those of the other sides, likewise.

    Returns:
        The pair, and the share of all choices of signs for the outer steps by which some pair is
        pulled apart as far: 1 where none pulls apart, and the least is `2^(1 - outer steps)`.
    """
    # The opposite of all signs pulls as far: the first stays.
    rest = itertools.product((1.0, -1.0), repeat=len(one) - 1)
    signs = np.array([(1.0, *others) for others in rest])
    pulls = [_pulls(signs, side) for side in (one, other)]
    opposite = np.sign(pulls[0]) * np.sign(pulls[1]) < 0
    strengths = np.where(opposite, np.minimum(*map(np.abs, pulls)), 0.0)
    most = strengths.max(axis=1)
    return int(strengths[0].argmax()), float(np.mean(most >= most[0]))


def _pulls(signs: np.ndarray, side: np.ndarray) -> np.ndarray:
    """Mean over standard error for each choice of signs, [choices, pairs]; 0 of nothing at all."""
    count = len(side)
    means = signs @ side / count
    variances = np.maximum(np.sum(side**2, axis=0) - count * means**2, 0.0) / (count - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num(means / np.sqrt(variances / count), posinf=np.inf, neginf=-np.inf)


def _summed(shared: Shared, sides: Sequence[np.ndarray]) -> np.ndarray:
    """The period's hypergradients of some sides, sums over their cells, [every, sides]."""
    masks = np.stack([side.ravel() for side in sides]).astype(np.float64)
    return shared.gradients.reshape(len(shared.gradients), -1).astype(np.float64) @ masks.T


def _siblings(changes: Sequence[Mapping[str, Any]]) -> list[tuple[int, int]]:
    """The two blocks of each split whose sides haven't been split further."""
    standing: list[tuple[int, int]] = []
    for change in changes:
        if change["change"] == "split":
            standing.append((change["blocks"][0], change["blocks"][1]))
        else:
            standing.remove((change["blocks"][0], change["blocks"][1]))
    return [
        pair
        for number, pair in enumerate(standing)
        if not any(later in pair for later, _ in standing[number + 1 :])
    ]


def _sums(partition: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The sum over its block, at each cell."""
    return np.bincount(partition.ravel(), values.ravel())[partition]


def _averaged(tree: Any, partition: np.ndarray) -> Any:
    """A tree like η, or a state of the optimizer, with the mean over its block at each cell.

    Where all cells of a block are equal they stay as they are, bit for bit.
    """

    def mean(path: tuple[Any, ...], leaf: Any) -> Any:
        if not any(getattr(key, "key", None) == KEY for key in path):
            return leaf
        sums = _sums(partition, np.asarray(leaf, np.float64))
        return jnp.asarray(sums / _sums(partition, np.ones(partition.shape)), leaf.dtype)

    return jax.tree_util.tree_map_with_path(mean, tree)
