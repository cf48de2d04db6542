"""Values within the parameters: one for each element, row or column of a tensor."""

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from metatune.hypergrad.shapes import Params, Shapes
from metatune.models import ParameterNames
from metatune.recipe.schema import PerElement
from metatune.tunables.shapes import Names


class Elements(NamedTuple):
    """Blocks of values that broadcast against the parameters.

    Attributes:
        names: `ParameterNames` at the leaves of a tree like the parameters.
        blocks: the shape of each leaf's values, of its rank: its own size along an axis, or one.
    """

    names: Names
    blocks: tuple[tuple[int, ...], ...]

    @property
    def size(self) -> int:
        """How many values there are."""
        return sum(map(math.prod, self.blocks))

    def spread(self, values: Float[Array, "{self.size}"]) -> Params:
        """The values of each parameter.

        Args:
            values: leaf by leaf.

        Returns:
            A tree like the parameters; each leaf has the shape of its block.
        """
        # Slices, not an index: its derivative is one concatenation, not a scatter of so many.
        parts = jax.lax.split(values, [math.prod(block) for block in self.blocks])
        blocks = [p.reshape(block) for p, block in zip(parts, self.blocks, strict=True)]
        return jax.tree.unflatten(jax.tree.structure(self.names), blocks)

    def by_name(
        self, values: Float[np.ndarray, "*lead {self.size}"]
    ) -> Mapping[str, Float[np.ndarray, "..."]]:
        """The values of each tensor of a checkpoint.

        Args:
            values: leaf by leaf on the last axis.

        Returns:
            By checkpoint name, [..., *block], a block of the tensor's rank.
        """
        found: dict[str, Float[np.ndarray, "..."]] = {}
        ends = np.cumsum([0, *map(math.prod, self.blocks)])
        leaves = jax.tree.leaves(self.names)
        for leaf, block, (begin, end) in zip(leaves, self.blocks, pairwise(ends), strict=True):
            of_leaf = values[..., begin:end]
            own = block[1:] if leaf.stacked else block
            layers = of_leaf.reshape(*values.shape[:-1], len(leaf.names), *own)
            for layer, name in enumerate(leaf.names):
                found[name] = layers.take(layer, axis=values.ndim - 1)
        return found


def elements(names: Names, shapes: Shapes, per: PerElement) -> Elements:
    """Values within parameters.

    Args:
        names: `ParameterNames` at the leaves of a tree like the parameters.
        shapes: the parameters, or their shapes.
        per: `row` is one for each output of a matrix [out, in], that is for each index of axis 0 of
            the checkpoint's tensor, and `column` one for each input, of axis 1; in matrices that
            checkpoints hold as [in, out] the axes are the other way round. An embedding is a matrix
            [tokens, features]. A vector has as many rows as elements, and one column.
    """
    blocks = [
        _block(leaf, tuple(parameter.shape), per)
        for leaf, parameter in zip(jax.tree.leaves(names), jax.tree.leaves(shapes), strict=True)
    ]
    return Elements(names, tuple(blocks))


def _block(leaf: ParameterNames, shape: tuple[int, ...], per: PerElement) -> tuple[int, ...]:
    layers, tensor = shape[: leaf.lead], shape[leaf.lead :]
    if per == "element":
        return shape
    if len(tensor) < 2:
        return shape if per == "row" else (*layers, *(1 for _ in tensor))
    axis = int((per == "column") != leaf.transposed)
    return (*layers, *(size if at == axis else 1 for at, size in enumerate(tensor)))
