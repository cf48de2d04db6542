"""Where randomness comes from: the recipe's seed, a purpose, and a number.

Trainings of different purposes never share an initialisation or a data order, so that what chooses
the best and what reports the result have not been seen by the hypergradients.

Entry i of a result's `held_out_seeds` is training number i for the purpose `TEST`, measured on
the held-out text of number 0. `metatune train --test-seed i` is the same training, 0 by default.
"""

from enum import IntEnum

import jax
import numpy as np
from jaxtyping import Array, Key

from metatune.data.randomness import WORD, seed_sequence


class Purpose(IntEnum):
    """What a training is run for."""

    HYPERGRADIENT = 0
    VALIDATION = 1
    TEST = 2


class Stream(IntEnum):
    """What is drawn for a training."""

    TRAINING = 0
    HELD_OUT = 1


def key(seed: int) -> Key[Array, ""]:
    """The key of a seed, 0 to 2**64 - 1, no two of which share one.

    JAX drops the upper half of a seed where its numbers have 32 bits, as they do by default.
    """
    if seed < WORD:
        return jax.random.key(seed)
    with jax.enable_x64(True):
        return jax.random.key(np.uint64(seed))


def model_key(seed: int, purpose: Purpose, index: int, member: int | None = None) -> Key[Array, ""]:
    """The key of an initialisation.

    Args:
        seed: the recipe's.
        purpose: what the training is for.
        index: which of the trainings for that purpose.
        member: which of a population; None for a training by itself.
    """
    own = jax.random.fold_in(jax.random.fold_in(key(seed), purpose), index)
    return _of_member(own, member)


def data_seed(
    seed: int, purpose: Purpose, index: int, stream: Stream, member: int | None = None
) -> tuple[int, ...]:
    """The seed of a data order; arguments as for `model_key`, and what is drawn."""
    return (seed, int(purpose), index, int(stream), *(() if member is None else (member,)))


def training_seed(seed: int, purpose: Purpose, index: int) -> int:
    """The seed of a training elsewhere, below 2**32; arguments as for `model_key`."""
    return int(seed_sequence((seed, purpose, index)).generate_state(1)[0])


def tunable_key(seed: int) -> Key[Array, ""]:
    """The key of what tunables draw to start from."""
    return jax.random.fold_in(key(seed), len(Purpose) + 1)


def direction_key(seed: int, step: int, member: int | None = None) -> Key[Array, ""]:
    """The key of the random directions of a hypergradient.

    Args:
        seed: the recipe's.
        step: the outer step.
        member: which of a population; None for a training by itself.
    """
    own = jax.random.fold_in(jax.random.fold_in(key(seed), len(Purpose)), step)
    return _of_member(own, member)


def _of_member(own: Key[Array, ""], member: int | None) -> Key[Array, ""]:
    return own if member is None else jax.random.fold_in(own, member)
