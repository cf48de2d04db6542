"""Hyperball: matrices that keep their Frobenius norm, whatever direction they are moved along.

    θ' = R normalise(θ - rate R normalise(d)),  R = ‖θ‖

for a matrix θ, of each layer by itself, and its direction d of Adam or Muon: the rate is how far it
turns. All other parameters follow `θ' = θ - rate * d`.

Source: Wen et al., Fantastic Pretraining Optimizers and Where to Find Them II: Hyperball
Optimization, 2026, arXiv 2606.16899. Which parameters keep their norm is as of `adamH` and `muonH`
in Levanter (marin-community/marin, lib/levanter/src/levanter/optim).
"""

from typing import Final

import jax
import jax.numpy as jnp
from jax.tree_util import KeyPath
from jaxtyping import Array, Bool, Float, PyTree

from metatune.hypergrad.shapes import Params, Shapes
from metatune.models import ParameterNames
from metatune.tunables.hyper import Rates
from metatune.tunables.optimizer_groups import of_blocks
from metatune.tunables.shapes import Names

HEAD: Final = "lm_head"
"""The module of an unembedding that isn't the embedding."""


def kept(names: Names, params: Params | Shapes) -> PyTree[bool]:
    """Which parameters keep their norm: the matrices of the blocks, and an unembedding's own.

    Args:
        names: `ParameterNames` at the leaves of a tree like the parameters.
        params: the parameters, or their shapes.
    """

    def keeps(
        path: KeyPath, leaf: ParameterNames, parameter: Float[Array | jax.ShapeDtypeStruct, "..."]
    ) -> bool:
        head = parameter.ndim == 2 and any(getattr(key, "key", None) == HEAD for key in path)
        return head or of_blocks(leaf, parameter)

    return jax.tree_util.tree_map_with_path(keeps, names, params)


def turned(names: Names, params: Params, directions: Params, rates: Rates) -> Params:
    """The parameters after a step.

    Args:
        names: as of `kept`.
        params: before it.
        directions: like the parameters.
        rates: learning rates, each broadcast against its parameter.
    """

    def step(
        keeps: bool,
        p: Float[Array, "*shape"],
        d: Float[Array, "*shape"],
        rate: Float[Array, "..."],
    ) -> Float[Array, "*shape"]:
        if not keeps:
            return p - rate * d
        # A norm has no derivative at zero: a matrix of zeros, or that nothing moves, stays.
        still = ~(_any(p != 0) & _any(d != 0))
        p_, d_ = jnp.where(still, 1, p), jnp.where(still, 1, d)
        radius = _norm(p_)
        moved = p_ - rate * radius * d_ / _norm(d_)
        return jnp.where(still, p, radius * moved / _norm(moved))

    return jax.tree.map(step, kept(names, params), params, directions, rates)


def _any(found: Bool[Array, "*stacked rows columns"]) -> Bool[Array, "*stacked 1 1"]:
    return jnp.any(found, axis=(-2, -1), keepdims=True)


def _norm(matrix: Float[Array, "*stacked rows columns"]) -> Float[Array, "*stacked 1 1"]:
    return jnp.sqrt(jnp.sum(jnp.square(matrix), axis=(-2, -1), keepdims=True))
