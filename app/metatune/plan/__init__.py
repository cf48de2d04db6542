"""What a recipe will cost, before it is run: bytes, seconds, and which estimator to take."""

from metatune.plan.alternatives import (
    Alternative,
    Plan,
    alternatives,
    plan,
)
from metatune.plan.cost_model import NotPredicted
from metatune.plan.memory import Memory
from metatune.plan.pace import Pace
from metatune.plan.phases import by_phase, decided, expected

__all__ = [
    "Alternative",
    "Memory",
    "NotPredicted",
    "Pace",
    "Plan",
    "alternatives",
    "by_phase",
    "decided",
    "expected",
    "plan",
]
