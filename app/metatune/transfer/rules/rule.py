"""What a rule is."""

from collections.abc import Callable
from typing import Literal, NamedTuple

from metatune.transfer.factors import Factors
from metatune.transfer.sizes import Side
from metatune.transfer.stepping import Kinds

Axis = Literal["width", "depth"]


class Rule(NamedTuple):
    """How a training follows its sizes.

    Attributes:
        name: on the command line.
        words: what to call it, with its source.
        factors: `(kinds of optimizers, proxy, target)` to the factors of each of the target's
            parameters; both have the same kinds of parameters.
        optimizers: kinds that it says something of; None for all.
        promises: along what activations move alike at every size: see `coordinates`.
    """

    name: str
    words: str
    factors: Callable[[Kinds, Side, Side], Factors]
    optimizers: tuple[str, ...] | None
    promises: tuple[Axis, ...] = ()
