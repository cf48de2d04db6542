"""Muon's direction: the momentum of each layer's matrix, made orthogonal.

Source: Jordan et al., Muon: An optimizer for hidden layers in neural networks, 2024.
"""

import functools
import math

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import KeyPath
from jaxtyping import Array, Bool, Float, PyTree
from optax.contrib import MuonDimensionNumbers, MuonState, scale_by_muon

from metatune.hypergrad.shapes import OptState, Params
from metatune.models import LORA_A, LORA_B
from metatune.recipe import schema

MATRIX = (1, 2)
"""The axes of a matrix in a stacked leaf, [layers, ...]."""


def orthogonal(spec: schema.MuonSpec, transposed: bool) -> optax.GradientTransformation:
    """Muon's direction of stacked matrices.

    Args:
        spec: the recipe's choice; what of it can be tuned may be traced.
        transposed: whether the matrices of blocks are [in, out], not [out, in]; those of adapters
            never are.
    """
    inner = scale_by_muon(
        ns_steps=spec.newton_schulz_steps,
        beta=spec.momentum,
        eps=spec.eps,
        nesterov=spec.nesterov,
        weight_dimension_numbers=lambda tree: axes(tree, transposed),
    )

    def update(
        updates: Params, state: OptState, params: Params | None = None
    ) -> tuple[Params, OptState]:
        # The norm of a matrix of zeros has no derivative, and automatic differentiation makes it
        # not a number: ones stand in for it, and nothing comes of them.
        nothing = jax.tree.map(silent, updates, state.mu)
        filled = jax.tree.map(lambda none, g: jnp.where(none, 1, g), nothing, updates)
        found, state = inner.update(filled, state, params)
        moments = jax.tree.map(lambda none, m: jnp.where(none, 0, m), nothing, state.mu)
        found = jax.tree_util.tree_map_with_path(
            lambda path, none, o: jnp.where(none, 0, scale(path, o, transposed) * o),
            nothing,
            found,
        )
        return found, MuonState(state.count, moments, state.ns_coeffs)

    return optax.GradientTransformation(inner.init, update)


def orthogonal_momentum(
    spec: schema.MuonHSpec | schema.NorMuonSpec, transposed: bool
) -> optax.GradientTransformation:
    """Muon's direction of stacked matrices, but for its size.

    The momentum is a plain trace, as of Levanter and PyTorch: that of `optax.contrib.muon` looks
    ahead further in its first updates, by its correction for a start at zero.

    Args:
        spec: the recipe's choice; what of it can be tuned may be traced.
        transposed: whether the matrices of blocks are [in, out], not [out, in].
    """
    alone = optax.contrib.scale_by_muon(
        ns_steps=spec.newton_schulz_steps,
        beta=0.0,
        eps=spec.eps,
        nesterov=False,
        weight_dimension_numbers=lambda tree: axes(tree, transposed),
    )

    def orthogonalised(momentum: Params, params: Params | None = None) -> Params:
        nothing = jax.tree.map(silent, momentum)
        filled = jax.tree.map(lambda none, m: jnp.where(none, 1, m), nothing, momentum)
        found: Params
        found, _ = alone.update(filled, alone.init(filled), params)
        return jax.tree.map(lambda none, o: jnp.where(none, 0, o), nothing, found)

    return optax.chain(
        optax.trace(spec.momentum, nesterov=spec.nesterov), optax.stateless(orthogonalised)
    )


def silent(*of: Float[Array, "layers rows columns"]) -> Bool[Array, "layers 1 1"]:
    """Which layers' matrices are zero in all of `of`: those that have no momentum."""
    some = [jnp.any(each != 0, axis=MATRIX, keepdims=True) for each in of]
    return ~functools.reduce(jnp.logical_or, some)


def axes(tree: Params, transposed: bool) -> PyTree[MuonDimensionNumbers]:
    """Inputs and outputs of each matrix."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: MuonDimensionNumbers(*inputs_and_outputs(path, transposed)), tree
    )


def scale(path: KeyPath, matrix: Float[Array, "layers rows columns"], transposed: bool) -> float:
    """What an orthogonal matrix is multiplied by, `sqrt(max(1, outputs / inputs))`."""
    inputs, outputs = (matrix.shape[axis] for axis in inputs_and_outputs(path, transposed))
    return math.sqrt(max(1, outputs / inputs))


def inputs_and_outputs(path: KeyPath, transposed: bool) -> tuple[int, int]:
    """Their axes in the stacked matrix at a path; arguments as of `orthogonal`."""
    adapter = path[-1].key in (LORA_A, LORA_B)
    first, second = MATRIX
    return (first, second) if transposed and not adapter else (second, first)
