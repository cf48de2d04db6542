"""What a population's noise leaves of an outer step.

An outer optimizer that divides by the size of gradients moves a coordinate which is noise as far as
one that is signal. Here each coordinate's step is multiplied by

    max(0, 1 - c² / t²),    t = |mean| / standard error of the hypergradient over the members

so that nothing moves below c standard errors, and what is certain moves as it would. Of the values
of a window, those that don't move by themselves move together: by the mean of their steps, times
the same factor of their mean hypergradient. Not of values that matter relative to each other.

Source: James & Stein, Estimation with Quadratic Loss, 1961 (the positive part, which has the least
squared error of a mean's shrinkage at c = 1, about); Balles & Hennig, Dissecting Adam: The Sign,
Magnitude and Variance of Stochastic Gradients, ICML 2018, section 4 (variance-adapted steps).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


class Gated(NamedTuple):
    """Updates and what was held back.

    Attributes:
        updates: like η.
        still: by tunable the share of its values that neither move by themselves nor together.
        together: by tunable the share of those that move together.
    """

    updates: dict[str, jax.Array]
    still: dict[str, jax.Array]
    together: dict[str, jax.Array]


def gated(
    updates: Mapping[str, Any],
    members: Mapping[str, Any],
    pooled: frozenset[str],
    gate: float,
) -> Gated:
    """The updates as far as noise allows.

    Args:
        updates: of the outer optimizer, by tunable; of those in `pooled` axis 0 is the windows'.
        members: hypergradients of each training, penalties included, [M, ...], by tunable.
        pooled: tunables of whose windows what is noise moves together.
        gate: c, in standard errors.
    """
    moved, still, together = {}, {}, {}
    for key, update in updates.items():
        found = jnp.asarray(members[key], jnp.float32)
        alone = factor(found, gate)
        step, stays = update * alone.astype(update.dtype), alone == 0
        shared = jnp.zeros_like(stays)
        if key in pooled and update.ndim > 1:
            step, shared = _together(update, step, found, stays, gate)
        moved[key] = step
        still[key] = jnp.mean(stays & ~shared)
        together[key] = jnp.mean(shared)
    return Gated(moved, still, together)


def factor(members: Float[Array, "M *shape"], gate: float) -> Float[Array, "*shape"]:
    """`max(0, 1 - c²/t²)` of each coordinate; zero where the mean is, one where nothing varies."""
    square = jnp.mean(members, axis=0) ** 2
    noise = jnp.var(members, axis=0, ddof=1) / len(members)
    return jnp.where(
        square > 0, jnp.maximum(0.0, 1 - gate**2 * noise / jnp.where(square > 0, square, 1.0)), 0.0
    )


def _together(
    update: Float[Array, "windows *shape"],
    step: Float[Array, "windows *shape"],
    members: Float[Array, "M windows *shape"],
    stays: Bool[Array, "windows *shape"],
    gate: float,
) -> tuple[Float[Array, "windows *shape"], Bool[Array, "windows *shape"]]:
    """Steps in which two values or more of a window that stay move together, and which these are.

    The gate of their mean is of the members that chose them: among k values of pure noise those
    below it have a mean that is nearer to zero still, so that the choice opens no gate.
    """
    rows = update.shape[0]
    chosen = stays.reshape(rows, -1)
    count = chosen.sum(axis=1)
    means = jnp.sum(jnp.where(chosen, members.reshape(len(members), rows, -1), 0.0), axis=2)
    opens = factor(means / jnp.maximum(count, 1)[None], gate) * (count > 1)
    mean = jnp.sum(jnp.where(chosen, update.reshape(rows, -1), 0.0), axis=1) / jnp.maximum(count, 1)
    shared = chosen & (opens > 0)[:, None]
    common = jnp.where(shared, (opens * mean)[:, None], step.reshape(rows, -1))
    return common.astype(step.dtype).reshape(step.shape), shared.reshape(stays.shape)
