"""Windows: stretches of the training that share one value of a hyperparameter.

Source: Micaelli & Storkey, Gradient-based Hyperparameter Optimization Over Long Horizons, 2021.
"""

import jax


def window_of(step: jax.Array, windows: int, steps: int) -> jax.Array:
    """The window that inner step `step` of `steps` lies in.

    Window w begins at fraction w / windows of the training.

    >>> [int(window_of(step, windows=3, steps=7)) for step in range(7)]
    [0, 0, 0, 1, 1, 2, 2]
    """
    return step * windows // steps
