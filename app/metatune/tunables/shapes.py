"""Names that signatures have for what tunables are given: slices of η, and trees of names."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from metatune.models import ParameterNames

Weights = PyTree[Float[Array | np.ndarray, "..."]]
"""Parameters of a model, or of a part of one, whatever their structure."""

Slice = Float[Array, "..."]
"""A tunable's part of η."""

Slices = Mapping[str, Slice]
"""η: a slice for each tunable, by its key."""

SlicesLike = Mapping[str, Float[Array | np.ndarray, "..."]]
"""η from wherever it comes, such as a file."""

Names = PyTree[ParameterNames]
"""Checkpoint names at the leaves of a tree like the parameters; None where a leaf isn't meant."""

Index = PyTree[Int[np.ndarray | np.generic, "..."]]
"""The number of each parameter's group: [layers] where it is stacked, [] otherwise."""
