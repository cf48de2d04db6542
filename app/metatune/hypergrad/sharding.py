"""Directions over devices: each pushes its own, and the training itself runs on all of them."""

from math import gcd
from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from metatune.hypergrad.problem import PyTree

AXIS = "directions"
ALL, EACH = PartitionSpec(), PartitionSpec(AXIS)


def mesh_for(directions: int, given: PyTree) -> Mesh | None:
    """The devices that so many directions are spread over; None for where all is.

    As many devices as divide the directions; of several processes all or none. What lies on several
    devices already, or is being traced, stays as it is.

    Args:
        directions: how many.
        given: all arrays that they are pushed with.
    """
    arrays = [leaf for leaf in jax.tree.leaves(given) if isinstance(leaf, jax.Array)]
    if any(isinstance(array, Tracer) or len(array.devices()) > 1 for array in arrays):
        return None
    devices = jax.devices()
    count = gcd(directions, len(devices))
    if count == 1 or (jax.process_count() > 1 and count < len(devices)):
        return None
    return Mesh(np.array(devices[:count]), (AXIS,))


def place(tree: PyTree, mesh: Mesh | None, spec: PartitionSpec = ALL) -> PyTree:
    """Puts arrays on the devices of a mesh; leaves them where there is none."""
    return tree if mesh is None else jax.device_put(tree, NamedSharding(mesh, spec))


def local(tree: PyTree, mesh: Mesh | None) -> PyTree:
    """Arrays that all devices of a mesh hold, on one of them."""
    return tree if mesh is None else jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)


def home(tree: PyTree, mesh: Mesh | None, like: PyTree) -> PyTree:
    """Arrays that all devices of a mesh hold, back to where those of another pytree are."""

    def back(leaf: jax.Array, there: Any) -> jax.Array:
        # An array that isn't bound to a device must stay so: programs are compiled anew otherwise.
        return jax.device_put(np.asarray(leaf), there.sharding if there.committed else None)

    return tree if mesh is None else jax.tree.map(back, local(tree, mesh), like)
