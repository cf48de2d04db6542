"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner, differentiable.

For a matrix's gradient g_t [m, n], with Q_L and Q_R the eigenbases that earlier gradients left:

    m_t = b1 m_{t-1} + (1 - b1) g_t,  v_t = b2 v_{t-1} + (1 - b2) (Q_Lᵀ g_t Q_R)²
    d_t = √(1 - b2ᵗ) / (1 - b1ᵗ) · Q_L [(Q_Lᵀ m_t Q_R) / (√v_t + ε)] Q_Rᵀ
    L_t = b2 L_{t-1} + (1 - b2) g_t g_tᵀ,  R_t = b2 R_{t-1} + (1 - b2) g_tᵀ g_t

The first gradient, g_0, is only measured: L_0 and R_0 have the first bases, and nothing moves.
After every so many updates the bases follow L_t and R_t by a step of power iteration, and v_t goes
along with the columns that it is of. Of a side that isn't rotated Q is 1: Adam is what is left.

Bases are differentiated like all else; `eigenbases.py` says where and how.

Source: Vyas et al., SOAP: Improving and Stabilizing Shampoo using Adam, 2024, arXiv 2409.11321,
algorithm 3; what it leaves open is as in the authors' code (nikhilvyas/SOAP, soap.py at a1e5535).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from metatune.hypergrad.shapes import OptState, Params
from metatune.inner.eigenbases import eigenbasis, followed, product
from metatune.recipe import schema
from metatune.tunables.optimizer_groups import of_blocks
from metatune.tunables.shapes import Names

Sides = tuple[
    Float[Array, "*stacked rows rows"] | None, Float[Array, "*stacked columns columns"] | None
]
"""One for the rows of a matrix and one for its columns; None for a side that isn't rotated."""


class SoapTensor(NamedTuple):
    """What is remembered of one parameter's gradients.

    Attributes:
        mu: their first moment.
        nu: their second moment, in the bases.
        gathered: L and R.
        bases: Q_L and Q_R.
    """

    mu: Float[Array, "*shape"]
    nu: Float[Array, "*shape"]
    gathered: Sides
    bases: Sides


class SoapState(NamedTuple):
    """The state of `soap`.

    Attributes:
        t: of the gradient that comes next.
        tensors: a `SoapTensor` for each parameter.
    """

    t: Int[Array, ""]
    tensors: PyTree[SoapTensor]


def soap(
    spec: schema.SoapSpec, names: Names, decay: optax.GradientTransformation
) -> optax.GradientTransformation:
    """SOAP's direction with weight decay: zero for the first gradient.

    Args:
        spec: the recipe's choice; what of it can be tuned may be traced.
        names: `ParameterNames` at the leaves of a tree like the parameters.
        decay: what adds weight decay to a direction; it has no state.
    """
    leaves, treedef = jax.tree.flatten(names)

    def init(params: Params) -> SoapState:
        def begun(rotated: bool, p: Float[Array, "*shape"]) -> SoapTensor:
            none, zeros = (None, None), jnp.zeros_like(p)
            left, right = (
                (
                    (
                        jnp.zeros((*p.shape[:-2], s, s), p.dtype)
                        if s <= spec.max_precond_dim
                        else None
                    )
                    for s in p.shape[-2:]
                )
                if rotated
                else none
            )
            return SoapTensor(zeros, zeros, (left, right), (left, right))

        of = treedef.flatten_up_to(params)
        tensors = [begun(of_blocks(leaf, p), p) for leaf, p in zip(leaves, of, strict=True)]
        return SoapState(jnp.zeros((), jnp.int32), treedef.unflatten(tensors))

    def update(
        updates: Params, state: OptState, params: Params | None = None
    ) -> tuple[Params, OptState]:
        given = (treedef.flatten_up_to(tree) for tree in (updates, state.tensors))
        found = [_step(spec, state.t, g, own) for g, own in zip(*given, strict=True)]
        directions, tensors = zip(*found, strict=True)
        moved: Params
        moved, _ = decay.update(treedef.unflatten(directions), optax.EmptyState(), params)
        moved = jax.tree.map(lambda d: jnp.where(state.t > 0, d, 0), moved)
        return moved, SoapState(state.t + 1, treedef.unflatten(tensors))

    return optax.GradientTransformation(init, update)


def _step(
    spec: schema.SoapSpec, count: Int[Array, ""], g: Float[Array, "*shape"], own: SoapTensor
) -> tuple[Float[Array, "*shape"], SoapTensor]:
    """A direction, for the first gradient a meaningless one, and what is remembered after it."""
    b1, b2 = spec.b1, spec.b2
    moves, t = count > 0, jnp.maximum(count, 1)
    mu = jnp.where(moves, b1 * own.mu + (1 - b1) * g, own.mu)
    nu = jnp.where(moves, b2 * own.nu + (1 - b2) * jnp.square(_into(own.bases, g)), own.nu)
    correction = jnp.sqrt(1 - b2**t) / (1 - b1**t)
    scaled = _into(own.bases, mu) / (jnp.sqrt(nu + spec.eps_root) + spec.eps)
    direction = correction * _out_of(own.bases, scaled)
    left, right = own.gathered
    gathered = (
        None if left is None else b2 * left + (1 - b2) * product(g, g.mT),
        None if right is None else b2 * right + (1 - b2) * product(g.mT, g),
    )
    if left is None and right is None:
        return direction, own._replace(mu=mu, nu=nu)
    refreshes = moves & (count % spec.precondition_frequency == 0)
    after = jax.lax.switch(
        jnp.where(moves, jnp.where(refreshes, 2, 1), 0),
        (_first, lambda _, bases, nu: (bases, nu), _refreshed),
        gathered,
        own.bases,
        nu,
    )
    return direction, SoapTensor(mu, after[1], gathered, after[0])


def _first(
    gathered: Sides, bases: Sides, nu: Float[Array, "*shape"]
) -> tuple[Sides, Float[Array, "*shape"]]:
    left, right = (None if each is None else eigenbasis(each) for each in gathered)
    return (left, right), nu


def _refreshed(
    gathered: Sides, bases: Sides, nu: Float[Array, "*shape"]
) -> tuple[Sides, Float[Array, "*shape"]]:
    (left, right), (q_left, q_right) = gathered, bases
    if left is not None and q_left is not None:
        q_left, order = followed(left, q_left)
        nu = jnp.take_along_axis(nu, order[..., :, None], -2)
    if right is not None and q_right is not None:
        q_right, order = followed(right, q_right)
        nu = jnp.take_along_axis(nu, order[..., None, :], -1)
    return (q_left, q_right), nu


def _into(bases: Sides, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Q_Lᵀ x Q_R."""
    left, right = bases
    x = x if left is None else product(left.mT, x)
    return x if right is None else product(x, right)


def _out_of(bases: Sides, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Q_L x Q_Rᵀ."""
    left, right = bases
    x = x if left is None else product(left, x)
    return x if right is None else product(x, right.mT)
