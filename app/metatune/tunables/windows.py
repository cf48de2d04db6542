"""Windows: stretches of the training that share one value of a hyperparameter.

Source: Micaelli & Storkey, Gradient-based Hyperparameter Optimization Over Long Horizons, 2021.
"""

import jax.numpy as jnp

from metatune.hypergrad.shapes import Scalar, StepLike


def window_of(step: StepLike, windows: int, steps: int) -> StepLike:
    """The window that inner step `step` of `steps` lies in.

    Window w begins at fraction w / windows of the training.

    >>> [int(window_of(step, windows=3, steps=7)) for step in range(7)]
    [0, 0, 0, 1, 1, 2, 2]
    """
    return step * windows // steps


def between_knots(step: StepLike, knots: int, steps: int) -> tuple[StepLike, Scalar]:
    """The knot at or before inner step `step`, the last but one at most, and how far it is past it.

    Two knots or more are evenly spread from the first step to the last. At knot k the way past it
    is exactly 0, at the last one exactly 1.

    >>> [float(sum(between_knots(step, knots=3, steps=5))) for step in range(5)]
    [0.0, 0.5, 1.0, 1.5, 2.0]
    """
    ahead, gap = step * (knots - 1), steps - 1
    before = jnp.minimum(ahead // gap, knots - 2)
    return before, (ahead - before * gap) / gap
