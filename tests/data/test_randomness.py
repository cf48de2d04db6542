"""Seeds of NumPy's generators from numbers of any size."""

import itertools

import numpy as np
import pytest

from metatune.data.randomness import WIDE, generator, seed_sequence

NUMBERS = (0, 1, 5, WIDE, 2**32, 2**32 + 5, 2**63, 2**64 - 1, 2**64, 2**200)


def state(*numbers, key=()):
    return tuple(seed_sequence(numbers, key).generate_state(4).tolist())


@pytest.mark.parametrize("count", [1, 2])
def test_no_two_seeds_are_the_same(count):
    every = list(itertools.product(NUMBERS, repeat=count))
    # NumPy fills short seeds up with zeros, so that as many numbers are compared with each other.
    assert len({state(*numbers) for numbers in every}) == len(every)


def test_numbers_of_one_word_are_numpys_own_seed():
    expected = np.random.SeedSequence((5, WIDE, 0), spawn_key=(1, 2)).generate_state(4)
    assert state(5, WIDE, 0, key=(1, 2)) == tuple(expected.tolist())


def test_numbers_are_not_their_words():
    # As np.random.SeedSequence has it.
    one, other = (np.random.SeedSequence(s).generate_state(4) for s in [(2**32 + 5, 7), (5, 1, 7)])
    assert np.array_equal(one, other)
    assert state(2**32 + 5, 7) != state(5, 1, 7)
    assert state(2**32 + 5, key=(3,)) != state(5, key=(1, 3))


def test_a_part_of_a_wide_seed_is_its_own():
    assert len({state(2**40, key=key) for key in [(), (0,), (1,), (0, 0), (0, 1)]}) == 5
    first, again = (generator((2**40,), (1,)).integers(2**62) for _ in range(2))
    assert first == again
