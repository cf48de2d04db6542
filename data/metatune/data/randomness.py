"""NumPy's randomness from whole numbers of any size, no two of which give the same."""

from collections.abc import Sequence
from typing import Final

import numpy as np

WORD: Final = 2**32
"""Numbers below it are one word of a seed."""

WIDE: Final = WORD - 1
"""The first word where a number is of several: as seeds begin otherwise, they don't meet."""


def seed_sequence(numbers: Sequence[int], spawn_key: Sequence[int] = ()) -> np.random.SeedSequence:
    """The seed that `numbers` are, and a part of it.

    NumPy puts the words of all numbers one after another: `(2**32 + 5, 7)` would be `(5, 1, 7)`.
    So where a number has more words than one, each is written with how many it has.

    Args:
        numbers: 0 or above, of any size, as many wherever a place in a program uses them.
        spawn_key: which part, numbers below 2**32.
    """
    if max(numbers, default=0) < WORD:
        return np.random.SeedSequence(tuple(numbers), spawn_key=tuple(spawn_key))
    entropy = [WIDE, len(numbers)]
    for number in numbers:
        words = _words(number)
        entropy += [len(words), *words]
    return np.random.SeedSequence(entropy, spawn_key=tuple(spawn_key))


def generator(numbers: Sequence[int], spawn_key: Sequence[int] = ()) -> np.random.Generator:
    """Random numbers of that seed; arguments as for `seed_sequence`."""
    return np.random.Generator(np.random.Philox(seed_sequence(numbers, spawn_key)))


def _words(number: int) -> list[int]:
    """A whole number's 32-bit words, the lowest first; at least one."""
    words = [number % WORD]
    while number := number // WORD:
        words.append(number % WORD)
    return words
