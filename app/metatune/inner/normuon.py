"""NorMuon's direction: Muon's, each neuron's part of it over the size of those before.

For o_t [outputs, inputs], the Nesterov momentum of a layer's matrix, made orthogonal:

    v_t = b v_{t-1} + (1 - b) mean_inputs(o_t²),  u_t = o_t / (√v_t + ε)
    d_t = √max(1, outputs / inputs) ‖o_t‖ / ‖u_t‖ · u_t

Source: Li et al., NorMuon: Making Muon more efficient and scalable, 2025, arXiv 2510.05491. The
size of d_t is that of the authors' code (zichongli5/NorMuon, normuon.py at d45c9a4).
"""

from typing import Final, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import KeyPath
from jaxtyping import Array, Float

from metatune.hypergrad.shapes import OptState, Params
from metatune.inner.orthogonal import MATRIX, inputs_and_outputs, scale, silent

SMALLEST: Final = 1e-10
"""ε of the authors' code."""

Matrices = Float[Array, "layers rows columns"]
Neurons = Float[Array, "layers outputs"]


class NorMuonState(NamedTuple):
    """The state of `neurons_alike`.

    Attributes:
        nu: second moment of each neuron's part of the update, [layers, outputs] of each matrix.
    """

    nu: Params


def neurons_alike(b2: Float[Array, ""] | float, transposed: bool) -> optax.GradientTransformation:
    """d_t of stacked matrices, from o_t.

    Args:
        b2: decay of the second moment.
        transposed: whether the matrices of blocks are [in, out], not [out, in].
    """

    def init(params: Params) -> NorMuonState:
        def zeros(path: KeyPath, p: Matrices) -> Neurons:
            inputs, _ = inputs_and_outputs(path, transposed)
            return jnp.zeros(p.shape[:inputs] + p.shape[inputs + 1 :], p.dtype)

        return NorMuonState(jax.tree_util.tree_map_with_path(zeros, params))

    def update(
        updates: Params, state: OptState, params: Params | None = None
    ) -> tuple[Params, OptState]:
        def moment(
            path: KeyPath,
            o: Float[Array, "layers rows columns"],
            nu: Float[Array, "layers outputs"],
        ) -> Neurons:
            inputs, _ = inputs_and_outputs(path, transposed)
            return b2 * nu + (1 - b2) * jnp.mean(jnp.square(o), axis=inputs)

        def direction(
            path: KeyPath,
            o: Float[Array, "layers rows columns"],
            nu: Float[Array, "layers outputs"],
        ) -> Matrices:
            inputs, _ = inputs_and_outputs(path, transposed)
            # A root and a norm have no derivative at zero: what never moved stays.
            u = o / jnp.expand_dims(jnp.sqrt(jnp.where(nu == 0, 1, nu)) + SMALLEST, inputs)
            still = silent(o)
            before, after = (jnp.where(still, 1, each) for each in (o, u))
            size = _norm(before) / (_norm(after) + SMALLEST)
            return jnp.where(still, 0, scale(path, o, transposed) * size * u)

        moments = jax.tree_util.tree_map_with_path(moment, updates, state.nu)
        found = jax.tree_util.tree_map_with_path(direction, updates, moments)
        return found, NorMuonState(moments)

    return optax.GradientTransformation(init, update)


def _norm(matrix: Matrices) -> Float[Array, "layers 1 1"]:
    return jnp.sqrt(jnp.sum(jnp.square(matrix), axis=MATRIX, keepdims=True))
