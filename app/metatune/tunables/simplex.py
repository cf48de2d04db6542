"""The simplex, in coordinates without constraints."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np


def shares(logits: jax.Array, floor: float = 0.0) -> jax.Array:
    """Shares that sum to one, none below `floor`: `p = floor + (1 - K floor) softmax(logits)`.

    Args:
        logits: [..., K].
        floor: smallest share; K floor < 1.

    Returns:
        [..., K].
    """
    count = logits.shape[-1]
    return floor + (1 - count * floor) * jax.nn.softmax(logits, axis=-1)


def logits_of(wanted: Sequence[float], floor: float = 0.0) -> jax.Array:
    """Logits that `shares` maps to `wanted`, [K], centred on zero.

    Every wanted share lies above the floor.
    """
    above = np.asarray(wanted, np.float64) - floor
    logits = np.log(above)
    return jnp.asarray(logits - logits.mean(), jnp.float32)
