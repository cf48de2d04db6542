"""Hypergradients: the derivative of a held-out loss through many steps of training.

Knows nothing of language models; works on any pytrees.
"""

from metatune.hypergrad.driver import hypergradient, train
from metatune.hypergrad.estimator import EstimatorError, evaluated, measured, shortened
from metatune.hypergrad.forward.fds import Forward
from metatune.hypergrad.forward.forward_gradient import ForwardGradient
from metatune.hypergrad.forward.persistent import PersistentES
from metatune.hypergrad.forward.push import Carry
from metatune.hypergrad.forward.zeroth_order import ZerothOrder
from metatune.hypergrad.population import Member, hypergradients
from metatune.hypergrad.problem import (
    Diagnostics,
    Growth,
    Hypergradient,
    Problem,
    Progress,
    State,
    as_argument,
)
from metatune.hypergrad.reverse.boundaries import ReplayError
from metatune.hypergrad.reverse.checkpoints import Checkpoints
from metatune.hypergrad.reverse.damping import Damping
from metatune.hypergrad.reverse.mixflow import MixFlow
from metatune.hypergrad.reverse.reverse_over_reverse import Reverse
from metatune.hypergrad.stores import CheckpointError

__all__ = [
    "Carry",
    "CheckpointError",
    "Checkpoints",
    "Damping",
    "Diagnostics",
    "EstimatorError",
    "Forward",
    "ForwardGradient",
    "Growth",
    "Hypergradient",
    "Member",
    "MixFlow",
    "PersistentES",
    "Problem",
    "Progress",
    "ReplayError",
    "Reverse",
    "State",
    "ZerothOrder",
    "as_argument",
    "evaluated",
    "hypergradient",
    "hypergradients",
    "measured",
    "shortened",
    "train",
]
