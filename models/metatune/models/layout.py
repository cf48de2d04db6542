"""Where a model's arrays lie on a mesh of devices, by the names of its parameters.

Over `data` a batch is cut, over `fsdp` a batch and all that is as large as the parameters
(Rajbhandari et al., ZeRO, 2020, stage 3), over `tensor` the features inside a block and the
vocabulary (Shoeybi et al., Megatron-LM, 2019). Parameters are put together over `fsdp` block by
block where they are used, and let go of again; JAX's partitioner does the rest. A fourth axis,
`members`, cuts nothing of one training: several, or tangents of one, are cut over it.

To have other parameters cut, add a row to `FSDP` or `TENSOR`: an expression for their names, and
the axis. Names are our own, of a Llama checkpoint: those that families have for them don't matter.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import jax
from flax import linen as nn
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec
from jax.tree_util import DictKey, KeyPath

from metatune.models.modules import LORA_A, LORA_B
from metatune.models.names import LAYERS

MEMBERS, DATA, FSDP_AXIS, TENSOR_AXIS = AXES = ("members", "data", "fsdp", "tensor")
BATCH: Final = (DATA, FSDP_AXIS)
"""The axes of the mesh that a batch is cut over."""

OUT, IN = 0, 1
"""Axes of a matrix [out, in]; of an embedding, [vocabulary, features]."""

Rules = Sequence[tuple[str, int | None]]
"""An expression that is searched for in a name, and the axis that is cut; None for none."""

FSDP: Final[Rules] = (
    (rf"\.(o_proj|down_proj)\.(weight|{LORA_B})$", OUT),
    (rf"\.(o_proj|down_proj)\.{LORA_A}$|\.{LORA_B}$", None),
    (r"\.experts\.gate_up_proj$", OUT),  # of experts in one array, [experts, in, out]
    (r".", IN),
)
"""Which axis of a matrix is cut over `fsdp`: the features of the residual stream.

The other factor of an adapter is small.
"""

TENSOR: Final[Rules] = (
    (r"(embed_tokens|lm_head)\.weight$", OUT),
    (rf"\.(q_proj|k_proj|v_proj|gate_proj|up_proj)\.(weight|{LORA_B})$", OUT),
    (rf"\.(o_proj|down_proj)\.(weight|{LORA_A})$", IN),
)
"""Which axis is cut over `tensor`: heads, features inside an MLP, the vocabulary.

One matrix for q, k and v isn't cut: its rows aren't in the order of heads.
"""

Path = tuple[str, ...]
"""The keys from the root of the parameters to a leaf."""


@dataclass(frozen=True)
class Layout:
    """How a model lies on a mesh; hashable, a part of what is static in compiled programs.

    Attributes:
        mesh: the devices, with all axes of `AXES`; an abstract one for devices that aren't here,
            for which programs can be compiled, and nothing else.
        transposed: whether the matrices of blocks are [in, out], not [out, in].
    """

    mesh: Mesh | AbstractMesh
    transposed: bool = False

    @property
    def parts(self) -> int:
        """How many parts a batch is cut into."""
        return self.mesh.shape[DATA] * self.mesh.shape[FSDP_AXIS]

    def stored(self, path: Path, shape: Sequence[int]) -> NamedSharding:
        """Where a parameter rests, and all that is like it: gradients, moments, adjoints.

        Args:
            path: its keys, from the root.
            shape: of it.
        """
        return NamedSharding(self.mesh, self._spec(path, shape, (FSDP_AXIS, TENSOR_AXIS)))

    def used(self, path: Path, shape: Sequence[int]) -> NamedSharding:
        """Where a parameter is computed with: whole, but for what is cut over `tensor`."""
        return NamedSharding(self.mesh, self._spec(path, shape, (TENSOR_AXIS,)))

    def shardings(self, tree: Any, params: Any) -> Any:
        """Where the arrays of a tree rest, such as those of an optimizer's state.

        What lies below the keys of a parameter is like it: of its shape, of its shape without one
        axis, as factored second moments are, or a square of one of its sides for each layer, as
        SOAP's bases are, whose rows are cut over `fsdp`. All else is copied to every device.

        Args:
            tree: of arrays or their shapes.
            params: the trained parameters or their shapes, nested dictionaries.
        """
        shapes = {
            _keys(path): tuple(leaf.shape)
            for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]
        }

        def of(path: KeyPath, leaf: Any) -> NamedSharding:
            keys, shape = _keys(path), tuple(leaf.shape)
            found = next((keys[i:] for i in range(len(keys)) if keys[i:] in shapes), None)
            if found is None:
                return self.copied
            whole = shapes[found]
            rests = self.stored(found, whole)
            if shape == whole:
                return rests
            for axis in range(len(whole)):
                if shape == whole[:axis] + whole[axis + 1 :]:
                    left = tuple(rests.spec[:axis]) + tuple(rests.spec[axis + 1 :])
                    return NamedSharding(self.mesh, PartitionSpec(*left))
            squares = [(*whole[:-2], side, side) for side in whole[-2:] if len(whole) == 3]
            if shape in squares and shape[1] % self.mesh.shape[FSDP_AXIS] == 0:
                return NamedSharding(self.mesh, PartitionSpec(None, FSDP_AXIS))
            return self.copied

        return jax.tree_util.tree_map_with_path(of, tree)

    @property
    def copied(self) -> NamedSharding:
        """The same on every device."""
        return NamedSharding(self.mesh, PartitionSpec())

    def place(self, tree: Any, params: Any) -> Any:
        """Puts arrays where they rest; arguments as of `shardings`."""
        return jax.device_put(tree, self.shardings(tree, params))

    def kept(self, tree: Any, params: Any) -> Any:
        """Within a program, arrays where they rest, and so all that derivatives make of them."""
        return jax.tree.map(jax.lax.with_sharding_constraint, tree, self.shardings(tree, params))

    def cut(self, batch: Any) -> Any:
        """Within a program, a batch over the axes that it is cut over, along axis 0 of its leaves.

        One that doesn't divide is computed whole on every device.
        """
        return jax.tree.map(self._cut, batch)

    def share(self) -> tuple[int, int]:
        """Which part of every batch the devices of this process compute, and of how many."""
        places = NamedSharding(self.mesh, PartitionSpec(BATCH)).addressable_devices_indices_map(
            (self.parts,)
        )
        rows = sorted({index[0].start or 0 for index in places.values() if index is not None})
        first, count = rows[0], len(rows)
        if rows != list(range(first, first + count)) or first % count or self.parts % count:
            raise ValueError(
                f"this process computes parts {rows} of {self.parts} of a batch; must be as many "
                "as any other's, one after the other"
            )
        return first // count, self.parts // count

    def of_shares(self, batch: Any) -> Any:
        """A batch that lies on the devices of all processes, from the share of each.

        Args:
            batch: arrays of the rows of `share`.
        """
        _, count = self.share()

        def whole(leaf: Any) -> jax.Array:
            spec = PartitionSpec(BATCH, *(None,) * (leaf.ndim - 1))
            shape = (len(leaf) * count, *leaf.shape[1:])
            place = NamedSharding(self.mesh, spec)
            return jax.make_array_from_process_local_data(place, leaf, shape)

        return jax.tree.map(whole, batch)

    def by_part(self, function: Callable[..., jax.Array], batch: int) -> Callable[..., jax.Array]:
        """Within a program, a function that each device computes of its own part of a batch.

        For what the partitioner would gather whole batches for: an order of tokens.

        Args:
            function: of arrays whose axis 0 is the batch's, or that of all its tokens, and last
                of something that all parts share whole; to such an array. What it does with a
                token doesn't depend on others.
            batch: sequences; those that don't divide are computed together.
        """
        if self.parts == 1 or batch % self.parts:
            return function

        def of_parts(*arguments: Any) -> jax.Array:
            own = (PartitionSpec(BATCH),) * (len(arguments) - 1)
            mapped = jax.shard_map(
                function,
                mesh=self.mesh,
                in_specs=(*own, PartitionSpec()),
                out_specs=PartitionSpec(BATCH),
                axis_names=set(BATCH),
                check_vma=False,
            )
            return mapped(*arguments)

        return of_parts

    def together(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Within a program, parameters as they are used, but for those of the blocks."""

        def of(path: KeyPath, leaf: jax.Array) -> jax.Array:
            keys = _keys(path)
            return leaf if LAYERS in keys else self._used(keys, leaf)

        return dict(jax.tree_util.tree_map_with_path(of, params))

    def gathering(self, block: type[nn.Module]) -> Any:
        """A block whose parameters are put together when it is called."""

        def gathered(variables: Mapping[str, Any]) -> Any:
            return jax.tree_util.tree_map_with_path(
                lambda path, leaf: self._used(_keys(path)[1:], leaf), variables
            )

        return nn.map_variables(block, "params", trans_in_fn=gathered)

    def _used(self, path: Path, leaf: jax.Array) -> jax.Array:
        return jax.lax.with_sharding_constraint(leaf, self.used(path, leaf.shape))

    def _cut(self, leaf: Any) -> Any:
        if not leaf.ndim or leaf.shape[0] % self.parts:
            return leaf
        spec = PartitionSpec(BATCH, *(None,) * (leaf.ndim - 1))
        return jax.lax.with_sharding_constraint(leaf, NamedSharding(self.mesh, spec))

    def _spec(self, path: Path, shape: Sequence[int], axes: Sequence[str]) -> PartitionSpec:
        """What is cut over which axis of the mesh; what doesn't divide isn't cut."""
        spec: list[str | None] = [None] * len(shape)
        if len(shape) - (LAYERS in path) < 2:
            return PartitionSpec()
        name = ".".join(path)
        for mesh_axis, rules in ((FSDP_AXIS, FSDP), (TENSOR_AXIS, TENSOR)):
            rule = next((axis for pattern, axis in rules if re.search(pattern, name)), None)
            if rule is None or mesh_axis not in axes:
                continue
            at = len(shape) - 2 + (1 - rule if self._turned(path) else rule)
            if shape[at] % self.mesh.shape[mesh_axis] == 0:
                spec[at] = mesh_axis
        # As JAX tells the places of what programs return: programs are compiled anew otherwise.
        while spec and spec[-1] is None:
            spec.pop()
        return PartitionSpec(*spec)

    def _turned(self, path: Path) -> bool:
        """Whether a matrix is [in, out]."""
        return self.transposed and path[-2].endswith("_proj") and path[-1] == "weight"


def mesh_of(data: int, fsdp: int, tensor: int, members: int = 1) -> Mesh:
    """The first devices as a mesh, of all processes; there have to be enough."""
    sizes = (members, data, fsdp, tensor)
    automatic, devices = (AxisType.Auto,) * len(AXES), jax.devices()[: math.prod(sizes)]
    return jax.make_mesh(sizes, AXES, automatic, devices=devices)


def abstract_mesh_of(data: int, fsdp: int, tensor: int, members: int = 1) -> AbstractMesh:
    """As `mesh_of`, of devices that this process needn't have."""
    automatic = (AxisType.Auto,) * len(AXES)
    return AbstractMesh((members, data, fsdp, tensor), AXES, axis_types=automatic)


def _keys(path: KeyPath) -> Path:
    return tuple(str(entry.key) for entry in path if isinstance(entry, DictKey))
