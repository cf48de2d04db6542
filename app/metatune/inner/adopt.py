"""ADOPT's direction, differentiable where a gradient has been zero all along.

    m_t = b1 m_{t-1} + (1 - b1) clip(g_t / max(√v_{t-1}, ε), t^¼),  v_t = b2 v_{t-1} + (1 - b2) g_t²

with m_0 = 0 and v_0 = g_0²: the first update measures alone. m_t is the direction.

Source: Taniguchi et al., ADOPT: Modified Adam Can Converge with Any β2 with the Optimal Rate,
NeurIPS 2024, algorithm 2.
"""

import jax
import jax.numpy as jnp
import optax
from optax.contrib import scale_by_adopt

from metatune.hypergrad.shapes import OptState, Params
from metatune.recipe import schema


def adopt(spec: schema.AdoptSpec) -> optax.GradientTransformation:
    """`optax.contrib.scale_by_adopt`.

    Args:
        spec: the recipe's choice; what of it can be tuned may be traced.
    """
    inner = scale_by_adopt(b1=spec.b1, b2=spec.b2, eps=spec.eps)

    def update(
        updates: Params, state: OptState, params: Params | None = None
    ) -> tuple[Params, OptState]:
        # max(√v, ε) as √max(v, ε²): automatic differentiation makes the root of a zero not a
        # number, even where ε takes its place.
        floored = jax.tree.map(lambda v: jnp.maximum(v, jnp.square(spec.eps)), state.nu)
        after: OptState
        found, after = inner.update(updates, state._replace(nu=floored), params)
        b2 = jnp.where(state.count > 0, spec.b2, 0)
        nu = optax.tree.update_moment_per_elem_norm(updates, state.nu, b2, 2)
        return found, after._replace(nu=nu)

    return optax.GradientTransformation(inner.init, update)
