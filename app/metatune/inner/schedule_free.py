"""Schedule-free training: a step from z along the gradient at y, and an average x that is judged.

    y_t = b1 x_t + (1 - b1) z_t
    z_{t+1} = z_t - rate_t direction(y_t)
    x_{t+1} = (1 - c_t) x_t + c_t z_{t+1},  c_t = w_t / (w_0 + ... + w_t)

with w_t the largest rate up to t to a power, of each tensor its own. The parameters of a state are
y; x comes of y and z. Where the largest rate is that of two windows alike there is a kink, whose
derivative is taken half from each.

Source: Defazio et al., The Road Less Scheduled, NeurIPS 2024, algorithm 1.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from metatune.hypergrad.shapes import OptState, Params, Scalar
from metatune.models import ParameterNames
from metatune.recipe import schema
from metatune.tunables.hyper import Rates
from metatune.tunables.shapes import Names


class ScheduleFreeState(NamedTuple):
    """State of schedule-free training.

    Attributes:
        z: where steps start from, like the parameters.
        weights: sum of the weights w so far, of each tensor.
        largest: the largest rate so far, of each tensor.
        inner: of what gives the direction.
    """

    z: Params
    weights: Rates
    largest: Rates
    inner: OptState


def init(inner: optax.GradientTransformation, names: Names, params: Params) -> ScheduleFreeState:
    """The state that a training starts with."""

    def zero(leaf: ParameterNames, p: Float[Array, "..."]) -> Float[Array, "..."]:
        return jnp.zeros(p.shape[: leaf.stacked] + (1,) * (p.ndim - leaf.stacked), p.dtype)

    # A copy: who trains gives the memory of parameters and state away.
    z = jax.tree.map(jnp.copy, params)
    zeros = jax.tree.map(zero, names, params)
    return ScheduleFreeState(z, zeros, jax.tree.map(jnp.copy, zeros), inner.init(params))


def step(
    spec: schema.ScheduleFreeAdamWSpec,
    inner: optax.GradientTransformation,
    grads: Params,
    state: ScheduleFreeState,
    params: Params,
    rates: Rates,
) -> tuple[Params, ScheduleFreeState]:
    """The next y, and the next state.

    Args:
        spec: the recipe's choice.
        inner: gives the direction.
        grads: at y.
        state: the state.
        params: y.
        rates: learning rates, each broadcast against its parameter.
    """
    directions, inner_state = inner.update(grads, state.inner, params)

    def largest(
        before: Float[Array, "*whole"], rate: Float[Array, "..."]
    ) -> Float[Array, "*whole"]:
        # Finer rates than one of a tensor count by their largest: an average is of whole tensors.
        within = tuple(axis for axis in range(rate.ndim) if before.shape[axis] == 1)
        return jnp.maximum(before, jnp.max(rate, axis=within, keepdims=True))

    most = jax.tree.map(largest, state.largest, rates)
    weight = jax.tree.map(lambda rate: rate**spec.weight_lr_power, most)
    total = jax.tree.map(jnp.add, state.weights, weight)
    z = jax.tree.map(lambda z, d, rate: z - rate * d, state.z, directions, rates)
    x = jax.tree.map(
        lambda x, z, w, of: (1 - w / of) * x + w / of * z,
        average(spec, params, state),
        z,
        weight,
        total,
    )
    y = jax.tree.map(lambda x, z: spec.b1 * x + (1 - spec.b1) * z, x, z)
    return y, ScheduleFreeState(z, total, most, inner_state)


def average(spec: schema.ScheduleFreeAdamWSpec, params: Params, state: ScheduleFreeState) -> Params:
    """x, which is judged and kept."""
    return jax.tree.map(lambda y, z: (y - (1 - spec.b1) * z) / spec.b1, params, state.z)


class SecondMoment(NamedTuple):
    """State of `scale_by_second_moment`.

    Attributes:
        updates: so far.
        nu: decaying mean of the squared gradients.
    """

    updates: Int[Array, ""]
    nu: Params


def scale_by_second_moment(
    b2: Scalar | float, eps: Scalar | float, eps_root: float
) -> optax.GradientTransformation:
    """`optax.scale_by_adam` with b1 = 0, which keeps no first moment."""

    def init(params: Params) -> SecondMoment:
        return SecondMoment(jnp.zeros([], jnp.int32), jax.tree.map(jnp.zeros_like, params))

    def update(
        grads: Params, state: SecondMoment, params: Params | None = None
    ) -> tuple[Params, SecondMoment]:
        del params
        count = jnp.asarray(optax.safe_increment(state.updates))
        nu = optax.tree.update_moment_per_elem_norm(grads, state.nu, b2, 2)
        unbiased = optax.tree.bias_correction(nu, b2, count)
        found = jax.tree.map(lambda g, v: g / (jnp.sqrt(v + eps_root) + eps), grads, unbiased)
        return found, SecondMoment(count, nu)

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]
