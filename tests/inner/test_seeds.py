"""Randomness from a recipe's seed: no two seeds share any, and small ones keep what they had."""

import jax
import pytest

from metatune.data import batches
from metatune.data.randomness import generator
from metatune.inner import seeds
from metatune.inner.seeds import Purpose, Stream

SEEDS = (5, 2**32 + 5, 2**40 + 5, 2**63 + 5, 2**63, 2**32, 0, 2**64 - 1, 2**32 - 1)


def keys(seed):
    """The keys of every stream of a seed, by what they are for."""
    return {
        "seed": seeds.key(seed),
        "initialisation": seeds.model_key(seed, Purpose.HYPERGRADIENT, 0),
        "test": seeds.model_key(seed, Purpose.TEST, 1, member=2),
        "tunables": seeds.tunable_key(seed),
        "directions": seeds.direction_key(seed, 3),
        "directions of a member": seeds.direction_key(seed, 3, member=1),
    }


def data(seed):
    """The first numbers of every order of a seed."""
    orders = [
        seeds.data_seed(seed, purpose, index, stream, member)
        for purpose in Purpose
        for index in (0, 1)
        for stream in Stream
        for member in (None, 0, 1)
    ]
    return [generator((len(order), *order), (0, 1)).integers(2**62) for order in orders]


def test_no_two_seeds_share_a_key():
    found = [
        tuple(jax.random.key_data(key).tolist()) for seed in SEEDS for key in keys(seed).values()
    ]
    assert len(set(found)) == len(found) == 6 * len(SEEDS)


def test_no_two_seeds_share_a_data_order():
    found = [number for seed in SEEDS for number in data(seed)]
    assert len(set(found)) == len(found)


def test_no_two_seeds_share_the_seed_of_a_training_elsewhere():
    found = [
        seeds.training_seed(seed, purpose, index)
        for seed in SEEDS
        for purpose in Purpose
        for index in (0, 1)
    ]
    assert len(set(found)) == len(found)
    assert max(found) < 2**32


def test_a_key_is_that_of_jax_with_numbers_of_64_bits(float64):
    for seed in (5, 2**32 + 5, 2**62 + 5):
        expected = jax.random.key_data(jax.random.key(seed)).tolist()
        assert jax.random.key_data(seeds.key(seed)).tolist() == expected
    assert jax.random.key_data(seeds.key(2**64 - 1)).tolist() == [2**32 - 1, 2**32 - 1]


def test_keys_do_not_depend_on_the_precision_of_a_test():
    with jax.enable_x64(True):
        wide = {name: jax.random.key_data(key).tolist() for name, key in keys(2**40 + 5).items()}
    narrow = {name: jax.random.key_data(key).tolist() for name, key in keys(2**40 + 5).items()}
    assert wide == narrow


RECORDED = {
    0: {
        "initialisation": [4165894930, 804218099],
        "test": [618371039, 3839212232],
        "tunables": [2285895361, 433833334],
        "directions": [831513028, 69952697],
        "directions of a member": [1603353405, 3814896255],
    },
    5: {
        "initialisation": [1476913942, 4047406665],
        "test": [1082569732, 2898819932],
        "tunables": [898128576, 3750995185],
        "directions": [3720523337, 893141948],
        "directions of a member": [4128398355, 920501089],
    },
}
"""What version 0.1.0 drew: recipes must go on giving the same runs."""


@pytest.mark.parametrize("seed", RECORDED)
def test_small_seeds_keep_their_keys(seed):
    found = {name: jax.random.key_data(key).tolist() for name, key in keys(seed).items()}
    assert found == {"seed": [0, seed], **RECORDED[seed]}


@pytest.mark.parametrize(
    ("seed", "places", "offsets", "elsewhere"),
    [
        (0, [7, 4, 6, 5, 1, 2, 3, 0], [645691674, 83514581], 1961547765),
        (5, [0, 5, 1, 4, 6, 2, 7, 3], [415106207, 113145771], 1070606992),
    ],
)
def test_small_seeds_keep_their_orders(seed, places, offsets, elsewhere):
    alone = seeds.data_seed(seed, Purpose.VALIDATION, 2, Stream.TRAINING)
    member = seeds.data_seed(seed, Purpose.VALIDATION, 2, Stream.TRAINING, member=1)
    assert generator((4, *alone), (0, 0, 1)).permutation(8).tolist() == places
    assert (
        generator((5, *member), (batches.DrawStream.OFFSET,)).integers(2**30, size=2).tolist()
        == offsets
    )
    assert seeds.training_seed(seed, Purpose.TEST, 1) == elsewhere
