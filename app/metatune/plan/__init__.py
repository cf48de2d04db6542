"""What a recipe will cost, before it is run: bytes, seconds, and which estimator to take."""

from metatune.plan.alternatives import (
    Alternative,
    NotForetold,
    Plan,
    alternatives,
    expected,
    plan,
)
from metatune.plan.memory import Memory
from metatune.plan.pace import Pace

__all__ = [
    "Alternative",
    "Memory",
    "NotForetold",
    "Pace",
    "Plan",
    "alternatives",
    "expected",
    "plan",
]
