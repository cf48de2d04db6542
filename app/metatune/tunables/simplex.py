"""The simplex, in coordinates without constraints."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from metatune.hypergrad.shapes import Scalar, Step


def shares(logits: Float[Array, "... K"], floor: float = 0.0) -> Float[Array, "... K"]:
    """Shares that sum to one, none below `floor`: `p = floor + (1 - K floor) softmax(logits)`.

    Args:
        logits: of K shares.
        floor: smallest share; K floor < 1.
    """
    count = logits.shape[-1]
    return floor + (1 - count * floor) * jax.nn.softmax(logits, axis=-1)


def logits_of(wanted: Sequence[float], floor: float = 0.0) -> Float[Array, "{len(wanted)}"]:
    """Logits that `shares` maps to `wanted`, centred on zero.

    Every wanted share lies above the floor.
    """
    above = np.asarray(wanted, np.float64) - floor
    logits = np.log(above)
    return jnp.asarray(logits - logits.mean(), jnp.float32)


def capped_shares(
    logits: Float[Array, "{len(caps)}"], floor: float, caps: Sequence[float]
) -> Float[Array, "{len(caps)}"]:
    """Shares that sum to one, each between `floor` and its cap.

    `p = floor + (cap - floor) sigmoid(logits + τ)` with the τ for which they sum to one: a logit is
    the logarithm of how far a share is from its floor over how far from its cap.

    Args:
        logits: of K shares.
        floor: smallest share; K floor < 1.
        caps: largest share of each, above the floor; they sum to more than one.
    """
    room = jnp.asarray(caps, logits.dtype) - floor
    free = 1 - len(caps) * floor
    fixed = jax.lax.stop_gradient(logits)
    shift = _shift(fixed, room, free)
    # The derivative of τ from that of h(τ, logits) = Σ room sigmoid(logits + τ) = free, by the
    # implicit function theorem: -∂h/∂logits / ∂h/∂τ. The term is zero but for its derivative.
    inside = jax.nn.sigmoid(fixed + shift)
    slope = jnp.sum(room * inside * (1 - inside))
    total = jnp.sum(room * jax.nn.sigmoid(logits + shift))
    moved = total - jax.lax.stop_gradient(total)
    # Where all shares are at their ends nothing moves, and the slope may be zero.
    shift = shift - moved / jnp.maximum(slope, jnp.finfo(logits.dtype).tiny)
    return floor + room * jax.nn.sigmoid(logits + shift)


def capped_logits_of(
    wanted: Sequence[float], floor: float, caps: Sequence[float]
) -> Float[Array, "{len(wanted)}"]:
    """Logits that `capped_shares` maps to `wanted`, with a τ of zero.

    Every wanted share lies between the floor and its cap; they sum to one.
    """
    share, cap = np.asarray(wanted, np.float64), np.asarray(caps, np.float64)
    return jnp.asarray(np.log(share - floor) - np.log(cap - share), jnp.float32)


def _shift(logits: Float[Array, "K"], room: Float[Array, "K"], free: float) -> Scalar:
    """The τ for which `Σ room sigmoid(logits + τ) = free`, by bisection."""
    part = free / jnp.sum(room)
    middle = jnp.log(part) - jnp.log1p(-part)
    # With the largest logit at the middle no term exceeds its part of the sum, with the smallest
    # none falls short of it.
    bracket = middle - jnp.max(logits), middle - jnp.min(logits)

    def halved(_: Step, bracket: tuple[Scalar, Scalar]) -> tuple[Scalar, Scalar]:
        low, high = bracket
        between = (low + high) / 2
        above = jnp.sum(room * jax.nn.sigmoid(logits + between)) > free
        return jnp.where(above, low, between), jnp.where(above, between, high)

    # A bracket of 2^10 and less comes down to the rounding of a number of one.
    low, high = jax.lax.fori_loop(0, jnp.finfo(logits.dtype).nmant + 10, halved, bracket)
    return (low + high) / 2
