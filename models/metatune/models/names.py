"""Parameters under the names of Hugging Face checkpoints."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax

Shape = tuple[int, ...]

LAYERS = "layers"
"""The key below which parameters are stacked, layer by layer, on axis 0."""


@dataclass(frozen=True)
class ParameterNames:
    """The checkpoint names of one leaf of the parameters.

    Attributes:
        names: one name; for a stacked leaf one per layer.
        stacked: whether axis 0 of the leaf is the layer.
        transposed: whether these are matrices [in, out]; all others are [out, in].
    """

    names: tuple[str, ...]
    stacked: bool
    transposed: bool = False


def parameter_names(
    params: Mapping[str, Any], checkpoint_name: Callable[[str], str], transposed: bool = False
) -> dict[str, Any]:
    """The names of a model's parameters.

    The path to a leaf, joined by dots, with the layer's number after `layers`, is what we call it.

    Args:
        params: parameters or their shapes, nested dictionaries.
        checkpoint_name: from that to what the family's checkpoints call it.
        transposed: whether the matrices of blocks are [in, out] in checkpoints.

    Returns:
        The same nested dictionaries with `ParameterNames` at the leaves.
    """

    def name(path: tuple[Any, ...], leaf: Any) -> ParameterNames:
        keys = [entry.key for entry in path]
        if LAYERS not in keys:
            return ParameterNames((checkpoint_name(".".join(keys)),), stacked=False)
        after = keys.index(LAYERS) + 1
        head, tail = ".".join(keys[:after]), ".".join(keys[after:])
        names = (f"{head}.{layer}.{tail}" for layer in range(leaf.shape[0]))
        return ParameterNames(
            tuple(checkpoint_name(name) for name in names),
            stacked=True,
            transposed=transposed and leaf.ndim == 3,
        )

    return jax.tree_util.tree_map_with_path(name, dict(params))


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
