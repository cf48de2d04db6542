"""Pairs of trainings on either side of η, and what is made of those that diverge.

A loss that isn't a finite number has no difference to another. To leave its pair out would lean the
mean towards where training survives: of a loss that falls towards a wall, beyond which it diverges,
only the falling is seen. So a side that diverged counts as a loss C, beyond all that are finite by
as much as these differ from each other:

    C = largest + (largest - least)

The difference of such a pair is at least that of every sound one, and at most twice their range:
its derivative points away from where training diverged, and drowns no other. Of a single pair whose
loss rises towards the wall, from the sound side to η, C lies on the line through both. Where all
finite losses are equal C is beyond them by their size, or by one.

What is estimated is then the derivative of min(F, C), not of F: nothing changes where nothing
diverges, and elsewhere the height of the wall is a convention.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Integer


class Pairs(NamedTuple):
    """What pairs of trainings say, arrays of NumPy or JAX as the losses were.

    Attributes:
        differences: F(η + μv) - F(η - μv) with diverged sides counted as C; zero where both
            diverged.
        kept: whether a pair says anything: one of its sides is sound.
        diverged: sides that diverged.
        mean: of the finite losses.
    """

    differences: Float[Array | np.ndarray, "b"]
    kept: Bool[Array | np.ndarray, "b"]
    diverged: Integer[Array | np.integer, ""]
    mean: Float[Array | np.floating, ""]


def compared(
    sides: Float[Array | np.ndarray, "b 2"],
    others: Float[Array | np.ndarray, "n"] | Sequence[float] = (),
) -> Pairs:
    """The differences between the two sides of each pair.

    Args:
        sides: losses at η + μv and η - μv; not finite where training diverged.
        others: further losses that are known, for the range of finite ones.
    """
    xp = np if isinstance(sides, np.ndarray) else jnp
    sound = xp.isfinite(sides)
    known = xp.concatenate([sides.ravel(), xp.asarray(others, sides.dtype)])
    finite = xp.isfinite(known)
    # Where none is finite there is neither a wall nor a mean, and no pair that asks for them.
    with np.errstate(invalid="ignore"):
        largest = xp.max(xp.where(finite, known, -np.inf))
        least = xp.min(xp.where(finite, known, np.inf))
        size = xp.where(largest != 0, xp.abs(largest), 1)
        wall = largest + xp.where(largest > least, largest - least, size)
        mean = xp.sum(xp.where(sound, sides, 0)) / xp.sum(sound)
    counted = xp.where(sound, sides, wall)
    kept = xp.any(sound, axis=1)
    differences = xp.where(kept, counted[:, 0] - counted[:, 1], 0)
    return Pairs(differences, kept, xp.sum(~sound), mean)
