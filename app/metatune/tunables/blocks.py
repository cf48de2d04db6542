"""Blocks of meta-parameters, the windows of a tunable, and how the adjoint grew behind each."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float64

from metatune.hypergrad import Growth
from metatune.hypergrad.shapes import Leaf
from metatune.tunables import (
    GroupedField,
    LossTerm,
    OptimizerField,
    Tunable,
    TunableClassWeights,
    TunableLearningRates,
    TunableLossWeights,
    TunableMixture,
)

Row = Float64[np.ndarray, "n"]
"""The part of a window in a tree like η."""

WINDOWED = (
    TunableLearningRates,
    TunableMixture,
    TunableLossWeights,
    TunableClassWeights,
    OptimizerField,
    GroupedField,
    LossTerm,
)
"""What acts window by window, on the training itself."""

RELATIVE = (TunableMixture, TunableLossWeights, TunableClassWeights)
"""Of these the values of a window matter relative to each other: a common change does nothing."""


class WindowBlock(NamedTuple):
    """A window of a tunable.

    Attributes:
        key: of the tunable.
        window: which, from 0.
        first: fraction of the training from which its values act.
        stop: fraction up to which they do.
        relative: whether only the values relative to each other matter.
    """

    key: str
    window: int
    first: float
    stop: float
    relative: bool

    @property
    def name(self) -> str:
        """For the screen; windows are counted from one there."""
        return f"{self.key} window {self.window + 1}"

    def row(self, tree: Mapping[str, Float[Leaf, "..."]]) -> Row:
        """Its part of a tree like η, flat float64."""
        return np.asarray(tree[self.key], np.float64)[self.window].reshape(-1)

    def direction(self, row: Row) -> Row | None:
        """The direction of its trainings, of largest range or entry one, [n].

        All values together; or, of values that matter relative to each other, as the hypergradient
        has them, which of two is the only way there is.

        Args:
            row: its part of the hypergradient.

        Returns:
            None where the hypergradient says no direction.
        """
        if not self.relative:
            return np.ones_like(row)
        span = row.max() - row.min()
        return row / span if np.isfinite(span) and span > 0 else None

    def put(self, tree: Mapping[str, Float[Leaf, "..."]], row: Row) -> dict[str, Any]:  # as given
        """A tree like η with another part."""
        leaf = np.array(tree[self.key])
        leaf[self.window] = row.reshape(leaf[self.window].shape)
        return {**tree, self.key: leaf}


def blocks(tunables: Sequence[Tunable]) -> tuple[WindowBlock, ...]:
    """Those of what is tuned; none of what has no windows, or acts beside the training."""
    found = []
    for tunable in tunables:
        if not isinstance(tunable, WINDOWED):
            continue
        count = tunable.windows
        linear = isinstance(tunable, TunableLearningRates) and tunable.interpolation == "linear"
        for window in range(count):
            if linear and count > 1:
                first, stop = (window - 1) / (count - 1), (window + 1) / (count - 1)
            else:
                first, stop = window / count, (window + 1) / count
            found.append(
                WindowBlock(
                    tunable.key,
                    window,
                    max(first, 0.0),
                    min(stop, 1.0),
                    isinstance(tunable, RELATIVE),
                )
            )
    return tuple(found)


def growths(
    growth: Growth, found: Sequence[WindowBlock], steps: int
) -> Float64[np.ndarray, "blocks"]:
    """How many times the adjoint behind each block is the least that it was later, [blocks].

    The largest norm of the adjoint of the parameters at the boundaries that its steps lead to, in
    the least norm at or after them, both without any cap; of several trainings the median. One
    where it didn't grow, or nothing was differentiated; infinite where a norm isn't finite.

    Args:
        growth: of the hypergradient.
        found: the blocks.
        steps: inner steps of the training.
    """
    ends = np.asarray(growth.params, np.float64)
    ends = ends.reshape(len(ends), -1)
    at = growth.steps - growth.steps[-1] + steps  # of populations it begins with zero
    with np.errstate(all="ignore"):
        # The logarithm of the norm without a cap: what was let through, and what was not.
        logs = np.log(ends) - _behind(np.asarray(growth.damped, np.float64), ends.shape)
        logs = np.where(np.isfinite(ends) & (ends > 0), logs, np.inf)
        grown = logs - np.minimum.accumulate(logs[::-1])[::-1]
    grown = np.where(ends == 0, 0.0, np.where(np.isfinite(ends), grown, np.inf))
    times = []
    for block in found:
        # What leads to the first boundary isn't differentiated.
        inside = (at > max(block.first * steps, at[0])) & (at <= np.ceil(block.stop * steps))
        # A window shorter than a segment has no boundary within it: the next one is behind it.
        if not inside.any() and at[0] < np.ceil(block.stop * steps) and block.first < 1:
            inside = at == at[np.searchsorted(at, max(block.first * steps, at[0]), "right")]
        of_each = grown[inside].max(axis=0) if inside.any() else np.zeros(1)
        with np.errstate(over="ignore"):
            times.append(float(np.exp(np.median(of_each))))
    return np.asarray(times)


def _behind(
    damped: Float64[np.ndarray, "between *M"], shape: tuple[int, ...]
) -> Float64[np.ndarray, "n trainings"]:
    """The logarithm of what a cap multiplied the adjoint by from each boundary to the end."""
    of_each = damped.reshape(len(damped), -1)
    return np.concatenate([np.cumsum(of_each[::-1], axis=0)[::-1], np.zeros((1, shape[1]))])
