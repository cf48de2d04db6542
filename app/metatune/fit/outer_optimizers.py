"""Outer optimizers: how a hypergradient moves the meta-parameters."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from metatune.recipe import schema


class SignState(NamedTuple):
    """State of `sign_with_halving`.

    Attributes:
        steps: step size of each meta-parameter.
        signs: sign of its last hypergradient.
    """

    steps: Any
    signs: Any


def sign_with_halving(learning_rate: float) -> optax.GradientTransformation:
    """Steps by the sign of the hypergradient; halves a step size when its sign flips.

    `s ← s / 2 where sign(g) sign(g_previous) < 0;  η ← η - s sign(g)`

    Args:
        learning_rate: the first step size of every meta-parameter.

    Source: Micaelli & Storkey, NeurIPS 2021, section 5 (outer optimisation).
    """

    def init(params: Any) -> SignState:
        return SignState(
            jax.tree.map(lambda p: jnp.full_like(p, learning_rate), params),
            jax.tree.map(jnp.zeros_like, params),
        )

    def update(grads: Any, state: SignState, params: Any = None) -> tuple[Any, SignState]:
        del params
        signs = jax.tree.map(jnp.sign, grads)
        steps = jax.tree.map(
            lambda step, new, old: jnp.where(new * old < 0, step / 2, step),
            state.steps,
            signs,
            state.signs,
        )
        # A hypergradient of exactly zero says nothing: the last sign is remembered.
        known = jax.tree.map(lambda new, old: jnp.where(new == 0, old, new), signs, state.signs)
        return jax.tree.map(lambda s, sign: -s * sign, steps, signs), SignState(steps, known)

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]


def build(outer: schema.Outer) -> optax.GradientTransformation:
    """The outer optimizer of a recipe, after clipping by global norm."""
    clip = (
        optax.identity() if outer.clip_norm is None else optax.clip_by_global_norm(outer.clip_norm)
    )
    return optax.chain(clip, BUILDERS[type(outer.optimizer)](outer.optimizer))


BUILDERS: Mapping[type, Callable[..., optax.GradientTransformation]] = {
    schema.Adam: lambda spec: optax.adam(spec.learning_rate, b1=spec.b1, b2=spec.b2),
    schema.Sign: lambda spec: sign_with_halving(spec.learning_rate),
}
