"""Hypergradients: the derivative of a held-out loss through many steps of training.

Knows nothing of language models; works on any pytrees.
"""

from metatune.hypergrad.boundaries import ReplayError
from metatune.hypergrad.checkpoints import Checkpoints
from metatune.hypergrad.driver import hypergradient, train
from metatune.hypergrad.mixflow import MixFlow
from metatune.hypergrad.problem import (
    Diagnostics,
    Hypergradient,
    Problem,
    Progress,
    State,
    as_argument,
)
from metatune.hypergrad.reverse import Reverse
from metatune.hypergrad.stores import CheckpointError

__all__ = [
    "CheckpointError",
    "Checkpoints",
    "Diagnostics",
    "Hypergradient",
    "MixFlow",
    "Problem",
    "Progress",
    "ReplayError",
    "Reverse",
    "State",
    "as_argument",
    "hypergradient",
    "train",
]
