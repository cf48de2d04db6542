"""Directions, or members of a population, over devices: what is theirs is cut, the rest copied.

A training whose state lies on several devices by itself stays as it is, and its directions or
members are cut over the axis of its mesh that is called `MEMBERS`, if there is one; what is found
by it comes back to where η is.
"""

from dataclasses import dataclass
from math import gcd
from typing import Final

import jax
import numpy as np
from jax.core import Tracer
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding
from jaxtyping import Array, PyTree, Shaped

from metatune.hypergrad.shapes import Leaf, Tree

AXIS: Final = "each"
MEMBERS: Final = "members"
"""The axis of a mesh of trainings: over it nothing of one training is cut."""
ALL, EACH = PartitionSpec(), PartitionSpec(AXIS)


def mesh_for(count: int, given: PyTree, *, one_process: bool = False) -> Mesh | None:
    """The devices that so many directions or members are cut over; None for where all is.

    As many devices as divide them; of several processes all or none. What lies on several devices
    already, or is being traced, stays as it is.

    Args:
        count: how many.
        given: all arrays that they share, or shapes of them.
        one_process: none of several processes: what is cut can't be put together there.
    """
    if any(isinstance(leaf, Tracer) or _on_several(leaf) for leaf in jax.tree.leaves(given)):
        return None
    devices = jax.devices()
    used = gcd(count, len(devices))
    if used == 1 or (jax.process_count() > 1 and (one_process or used < len(devices))):
        return None
    return Mesh(np.array(devices[:used]), (AXIS,))


@jax.tree_util.register_static
@dataclass(frozen=True)
class MemberAxis:
    """The axis that directions or members are cut over, where each lies on several devices itself.

    Attributes:
        parts: of the axis; one where they stay together.
    """

    parts: int = 1

    @property
    def name(self) -> str | None:
        """On the mesh, as `spmd_axis_name` of `jax.vmap`; None where they stay together."""
        return MEMBERS if self.parts > 1 else None

    def filled_up(self, count: int) -> int:
        """The next number of directions that is divided."""
        return -(-count // self.parts) * self.parts


TOGETHER: Final = MemberAxis()


def member_axis(given: PyTree) -> MemberAxis:
    """The axis that directions or members of a training are cut over, by where it lies.

    One of one part, where its mesh has none for them, or where it is cut over that already, as
    several trainings side by side are.

    Args:
        given: arrays or shapes of it; what is being traced lies nowhere.
    """
    leaves = [leaf for leaf in jax.tree.leaves(given) if not isinstance(leaf, Tracer)]
    places = [getattr(leaf, "sharding", None) for leaf in leaves]
    parts = 1
    for place in places:
        if isinstance(place, NamedSharding):
            if MEMBERS in place.spec:
                return TOGETHER
            parts = max(parts, place.mesh.shape.get(MEMBERS, 1))
    return MemberAxis(parts)


def _on_several(leaf: PyTree) -> bool:
    """Whether an array lies on several devices, or would, of a shape of one."""
    place = getattr(leaf, "sharding", None)
    return place is not None and place.num_devices > 1


def stacked_place(place: Sharding | None, axis: MemberAxis | None = None) -> NamedSharding | None:
    """Where arrays [n, ...] like one lie; None for where they may.

    Args:
        place: of the one, on a mesh or wherever.
        axis: over which the n are cut; by default they are all on the same devices.
    """
    if not isinstance(place, NamedSharding):
        return None
    return NamedSharding(place.mesh, PartitionSpec(axis and axis.name, *place.spec))


def placed_stacks(shapes: Tree, like: Tree) -> Tree:
    """Shapes of arrays [n, ...], each where what it is stacked of lies.

    Args:
        shapes: of them.
        like: arrays or shapes of what they are stacked of, a tree like them; not looked at for
            none.
    """
    if not jax.tree.leaves(shapes):
        return shapes

    def placed(
        leaf: jax.ShapeDtypeStruct, one: Shaped[Leaf, "..."] | jax.ShapeDtypeStruct
    ) -> jax.ShapeDtypeStruct:
        place = stacked_place(getattr(one, "sharding", None))
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)

    return jax.tree.map(placed, shapes, like)


def replicate(tree: Tree, mesh: Mesh | None) -> Tree:
    """Puts arrays on all devices of a mesh; leaves them where there is none."""
    return tree if mesh is None else jax.device_put(tree, NamedSharding(mesh, ALL))


def shard(tree: Tree, mesh: Mesh | None, axis: int = 0) -> Tree:
    """Puts each direction's or member's part of arrays on its device; leaves them without a mesh.

    Args:
        tree: of arrays.
        mesh: the devices.
        axis: that the parts lie on; of an array with fewer axes the last.
    """
    if mesh is None:
        return tree

    def cut(leaf: Shaped[Leaf, "*shape"]) -> Shaped[Array, "*shape"]:
        before = (None,) * min(axis, np.ndim(leaf) - 1)
        return jax.device_put(leaf, NamedSharding(mesh, PartitionSpec(*before, AXIS)))

    return jax.tree.map(cut, tree)


def local(tree: Tree, mesh: Mesh | None) -> Tree:
    """Arrays that all devices of a mesh hold, on one of them."""
    return tree if mesh is None else jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)


def gather(tree: Tree, mesh: Mesh | None, like: PyTree = None) -> Tree:
    """Arrays from the devices of a mesh, whole again.

    Args:
        tree: of arrays that are cut, or that all devices hold.
        mesh: the devices; None leaves them where they are.
        like: of arrays whose places they get; None for arrays that aren't bound to any device.
    """
    if mesh is None:
        return tree

    def back(
        leaf: Shaped[Array, "*shape"], there: Shaped[Array, "..."] | None = None
    ) -> Shaped[Array, "*shape"]:
        # An array that isn't bound to a device must stay so: programs are compiled anew otherwise.
        place = None if there is None or not there.committed else there.sharding
        return jax.device_put(np.asarray(leaf), place)

    return jax.tree.map(back, tree) if like is None else jax.tree.map(back, tree, like)


def fetched(leaf: Shaped[Array, "*shape"]) -> Shaped[np.ndarray, "*shape"]:
    """An array in the memory of the process, whole; of several processes in that of each.

    All of them have to ask for it, where it lies on the devices of all.
    """
    if leaf.is_fully_addressable or leaf.is_fully_replicated:
        return np.asarray(leaf)
    everywhere = NamedSharding(_mesh(leaf), ALL)
    return np.asarray(jax.jit(lambda whole: whole, out_shardings=everywhere)(leaf))


def _mesh(leaf: Shaped[Array, "..."]) -> Mesh:
    if isinstance(leaf.sharding, NamedSharding) and isinstance(leaf.sharding.mesh, Mesh):
        return leaf.sharding.mesh
    raise ValueError(f"an array of several processes lies as {leaf.sharding}; must be on a mesh")


def brought_home(found: Tree, eta: PyTree) -> Tree:
    """What was found on several devices, each of which holds all of it, where η is.

    Args:
        found: of arrays, and of what is none.
        eta: arrays that aren't bound to any device, or else nothing is moved; neither is what is
            being traced.
    """
    given = [leaf for leaf in jax.tree.leaves(eta) if isinstance(leaf, jax.Array)]
    if any(isinstance(leaf, Tracer) or leaf.committed for leaf in given):
        return found

    def home(leaf: PyTree) -> PyTree:
        if not isinstance(leaf, jax.Array) or isinstance(leaf, Tracer):
            return leaf
        return leaf if len(leaf.devices()) == 1 else jax.device_put(fetched(leaf))

    return jax.tree.map(home, found)
