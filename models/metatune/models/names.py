"""Parameters under the names of Hugging Face checkpoints."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import jax

Shape = tuple[int, ...]

LAYERS = "layers"
"""The key below which parameters are stacked, layer by layer, on axis 0."""
EXPERTS = "experts"
"""The key right below which parameters have an axis of the experts of a block."""


@dataclass(frozen=True)
class ParameterNames:
    """The checkpoint names of one leaf of the parameters.

    Attributes:
        names: one name; for a stacked leaf one per layer.
        stacked: whether axis 0 of the leaf is the layer.
        transposed: whether these are matrices [in, out]; all others are [out, in].
        experts: whether the first axis, or the one after the layer, is the expert: of checkpoints
            that hold a matrix or a vector of each in one tensor.
    """

    names: tuple[str, ...]
    stacked: bool
    transposed: bool = False
    experts: bool = False

    @property
    def lead(self) -> int:
        """How many axes of the leaf come before those of a matrix, or of a vector."""
        return self.stacked + self.experts


def parameter_names(
    params: Mapping[str, Any],
    checkpoint_name: Callable[[str], str],
    transposed: bool = False,
    kinds: Mapping[str, Sequence[int]] = MappingProxyType({}),
) -> dict[str, Any]:
    """The names of a model's parameters.

    The path to a leaf, joined by dots, with the layer's number after `layers`, or in the place of
    the layers' kind, is what we call it.

    Args:
        params: parameters or their shapes, nested dictionaries.
        checkpoint_name: from that to what the family's checkpoints call it.
        transposed: whether the matrices of blocks are [in, out] in checkpoints.
        kinds: the numbers of the layers of each kind, as of an `Architecture`.

    Returns:
        The same nested dictionaries with `ParameterNames` at the leaves.
    """

    def name(path: tuple[Any, ...], leaf: Any) -> ParameterNames:
        keys = [entry.key for entry in path]
        if LAYERS not in keys:
            return ParameterNames((checkpoint_name(".".join(keys)),), stacked=False)
        after = keys.index(LAYERS) + 1
        head, tail = ".".join(keys[:after]), ".".join(keys[after + bool(kinds) :])
        numbers = layer_numbers(keys, leaf.shape[0], kinds)
        names = (f"{head}.{layer}.{tail}" for layer in numbers)
        experts = keys[-2] == EXPERTS
        return ParameterNames(
            tuple(checkpoint_name(name) for name in names),
            stacked=True,
            transposed=(transposed or experts) and leaf.ndim == 3 + experts,
            experts=experts,
        )

    return jax.tree_util.tree_map_with_path(name, dict(params))


def layer_numbers(
    keys: Sequence[str], count: int, kinds: Mapping[str, Sequence[int]]
) -> Sequence[int]:
    """The layers that a stacked leaf is of.

    Args:
        keys: from the root of the parameters to the leaf.
        count: how many there are.
        kinds: as of `parameter_names`.
    """
    return kinds[keys[list(keys).index(LAYERS) + 1]] if kinds else range(count)


def shapes_by_name(names: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, Shape]:
    """The shape of each parameter in a checkpoint.

    Args:
        names: `ParameterNames` at the leaves.
        params: parameters or their shapes, a tree like `names`.
    """
    leaves = jax.tree.leaves(names, is_leaf=lambda leaf: isinstance(leaf, ParameterNames))
    found = {}
    for named, leaf in zip(leaves, jax.tree.leaves(params), strict=True):
        found |= dict.fromkeys(named.names, tuple(leaf.shape[1 if named.stacked else 0 :]))
    return found
