"""Rates of a model of another depth, between those of the one that is tuned."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from metatune.hypergrad.shapes import Params
from metatune.tunables.shapes import Index


class BetweenCells(NamedTuple):
    """Cells of a larger model in those of the tuned one: each parameter lies between two.

    A value is `lower (upper / lower)^along`, which is between both in log space, and exactly that
    of a cell where both are the same.

    Attributes:
        size: how many cells the tuned model has.
        lower: pytree like the parameters of the larger model: the cell in the block before,
            [layers] where the parameter is stacked, [] otherwise; -1 for none.
        upper: that in the block after.
        along: the fraction of the way, likewise.
    """

    size: int
    lower: Index
    upper: Index
    along: PyTree[Float[np.ndarray | np.generic, "..."]]

    def spread(self, values: Float[Array, "{self.size}"], outside: float = 1.0) -> Params:
        """The value of each parameter.

        Args:
            values: of each cell, above zero.
            outside: of a parameter in none.

        Returns:
            A tree like the parameters, [layers] where they are stacked, [] otherwise.
        """
        values = jnp.append(values, outside)  # the last entry is that of -1

        def leaf(
            lower: Int[np.ndarray | np.generic, "*layers"],
            upper: Int[np.ndarray | np.generic, "*layers"],
            along: Float[np.ndarray | np.generic, "*layers"],
        ) -> Float[Array, "*layers"]:
            below = values[lower]
            return below * (values[upper] / below) ** jnp.asarray(along, values.dtype)

        return jax.tree.map(leaf, self.lower, self.upper, self.along)
