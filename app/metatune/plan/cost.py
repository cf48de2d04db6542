"""What a hypergradient costs, as its estimator's own file foretells it."""

from collections.abc import Callable
from typing import NamedTuple

from metatune.plan.memory import Memory


class Cost(NamedTuple):
    """Of a hypergradient.

    Attributes:
        memory: bytes at its peak.
        compilation: seconds that compiling its programs took, for all of them.
        seconds: measures a few steps, and tells what it takes.
    """

    memory: Memory
    compilation: float
    seconds: Callable[[], float]
