"""What arrays and pytrees hypergradients are made of: the names that signatures have for them.

Tests check all shapes that signatures state (tests/shape_checks.py); a program that runs checks
none. A letter is a structure of pytrees: those of one letter are alike within a signature.
"""

from typing import TypeVar

import jax
import numpy as np
from jaxtyping import Array, Float, Int, PyTree, Shaped

Tree = TypeVar("Tree")
"""A pytree that comes back with the same structure, and with leaves of the same kind."""

Leaf = Array | np.ndarray | np.number | np.bool
"""An array or a number with a type of its own: inside compiled programs what JAX traces."""

Scalar = Float[Array, ""]
Step = Int[Array, ""]
"""The number of an inner step, an int32, as compiled programs have it."""

StepLike = Int[Array | np.integer, ""] | int
"""The number of an inner step, wherever."""

Eta = PyTree[Float[Leaf, "..."], "E"]
"""Meta-parameters η, or what is like them: a direction, a gradient."""

Params = PyTree[Float[Leaf, "..."], "P"]
"""Parameters θ, or what is like them: a gradient, a tangent, an adjoint."""

Shapes = PyTree[Float[Leaf | jax.ShapeDtypeStruct, "..."]]
"""Parameters θ, or their shapes alone."""

OptState = PyTree[Shaped[Leaf, "..."]]
"""Optimizer state υ: besides floating-point leaves it may hold integers."""

Floats = list[Float[Array, "..."]]
"""The floating-point leaves of an optimizer state, or what is like them."""

Hyper = PyTree[Float[Leaf, "..."], "H"]
"""Hyperparameters λ_t, or what is like them."""

Batch = PyTree[Shaped[Leaf, "..."]]
"""The data x of an inner step, or a held-out batch."""

Parts = PyTree[Float[Leaf, "..."], "F"]
"""What the objective returns: F itself, or what it is made of."""
