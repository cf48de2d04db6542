"""Windows that are spoilt on purpose, so that it is known which are.

Which ones and how is a pure function of a seed and the number of the window.
"""

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from metatune.data.randomness import generator
from metatune.recipe.schema import CorruptionSpec

INTACT: Final = ""
"""The way of a window that nothing happens to."""

REPEATS: Final = 16
"""How often the beginning of a window stands in a repetitive one."""


def drawn_ways(numbers: np.ndarray, spec: CorruptionSpec) -> np.ndarray:
    """What becomes of windows: one of the ways of `spec`, or `INTACT`.

    Args:
        numbers: of the windows, int64 [windows].
        spec: how many, and what may happen to them.

    Returns:
        Text, [windows].
    """
    drawn = np.array([generator((spec.seed, int(number))).random(2) for number in numbers])
    drawn = drawn.reshape(len(numbers), 2)
    which = (drawn[:, 1] * len(spec.ways)).astype(int)
    return np.where(drawn[:, 0] < spec.share, np.asarray(spec.ways)[which], INTACT)


def spoilt(tokens: np.ndarray, numbers: np.ndarray, how: np.ndarray, seed: int) -> np.ndarray:
    """Windows after what happens to them.

    Args:
        tokens: [windows, length].
        numbers: of the windows, int64 [windows].
        how: as `drawn_ways` says, [windows].
        seed: of the orders.
    """
    changed = tokens.copy()
    for place in np.flatnonzero(how != INTACT):
        random = generator((seed, int(numbers[place])))
        random.random(2)  # which have chosen the way
        changed[place] = WAYS[str(how[place])](tokens[place], random)
    return changed


def _shuffled(window: np.ndarray, random: np.random.Generator) -> np.ndarray:
    return random.permutation(window)


def _repetitive(window: np.ndarray, random: np.random.Generator) -> np.ndarray:
    del random
    return np.resize(window[: -(-len(window) // REPEATS)], len(window))


WAYS: Final[Mapping[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]]] = {
    "shuffle": _shuffled,
    "repeat": _repetitive,
}
