"""Hypergradients: the derivative of a held-out loss through many steps of training.

Knows nothing of language models; works on any pytrees.
"""

from metatune.hypergrad.boundaries import ReplayError
from metatune.hypergrad.checkpoints import Checkpoints
from metatune.hypergrad.damping import Damping
from metatune.hypergrad.driver import hypergradient, train
from metatune.hypergrad.estimator import EstimatorError, evaluated, measured, shortened
from metatune.hypergrad.forward import Forward
from metatune.hypergrad.forward_gradient import ForwardGradient
from metatune.hypergrad.mixflow import MixFlow
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
from metatune.hypergrad.push import Carry
from metatune.hypergrad.reverse import Reverse
from metatune.hypergrad.stores import CheckpointError
from metatune.hypergrad.zeroth_order import ZerothOrder

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
