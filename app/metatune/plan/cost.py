"""What a hypergradient costs, as its estimator's own file predicts it."""

from collections.abc import Callable
from typing import Final, NamedTuple

from metatune.plan.memory import Memory
from metatune.plan.timing import Line, Lines, Probe

OF_GRADIENT: Final = 1 / 3
"""Of the seconds of a value and its gradient, those of the value alone."""


class Seconds(NamedTuple):
    """What is predicted from timings.

    Attributes:
        hypergradient: seconds of one.
        training: of one training alone, without derivatives by η; of several sizes, of one each.
        own: of one of the recipe's own size, where there are several; None where it is `training`.
    """

    hypergradient: float
    training: Line
    own: Line | None = None


class Cost(NamedTuple):
    """Of a hypergradient.

    Attributes:
        memory: bytes at its peak.
        compilation: seconds that compiling its programs took, for all of them.
        probes: the programs that are to be timed.
        seconds: what it takes, given their lines.
    """

    memory: Memory
    compilation: float
    probes: Callable[[], tuple[Probe, ...]]
    seconds: Callable[[Lines], Seconds]
