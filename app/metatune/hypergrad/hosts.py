"""What this process has of arrays on several devices, those of other processes among them."""

import math
from typing import Final

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import PyTree

MIB: Final = 2**20


def host_bytes(tree: PyTree) -> int:
    """Bytes that a copy in the memory of this process takes: of what is cut each part once.

    Args:
        tree: of arrays, or of their shapes; what lies nowhere yet counts whole.
    """
    total = 0
    for leaf in jax.tree.leaves(tree):
        place = getattr(leaf, "sharding", None)
        if place is None:
            total += leaf.size * leaf.dtype.itemsize
            continue
        there = place.addressable_devices_indices_map(leaf.shape).values()
        parts = {tuple((part.start, part.stop) for part in index or ()) for index in there}
        total += len(parts) * math.prod(place.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    return total


def least_of_all(amount: int) -> int:
    """The least of what all processes say, in whole MiB; all of them have to ask."""
    return min(said_by_all(amount // MIB)) * MIB  # 64 bits would be cut: JAX has 32 by default


def said_by_all(number: int) -> list[int]:
    """What each process says, 31 bits; all of them have to ask."""
    return np.ravel(multihost_utils.process_allgather(np.int32(number))).tolist()
