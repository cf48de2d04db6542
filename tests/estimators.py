"""The one table of estimators: every test that asks something of all of them goes through it."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from metatune.hypergrad import Forward, ForwardGradient, MixFlow, Reverse, ZerothOrder
from metatune.hypergrad.estimator import Estimator


class Row(NamedTuple):
    """A way to estimate.

    `make` is given the number of meta-parameters, and the steps of a segment; `error` is a relative
    error that belongs to the method: nothing but rounding is allowed for beside it.
    """

    make: Callable[[int, int], Estimator]
    error: float = 0.0


# A new estimator is a new row.
ESTIMATORS: Mapping[str, Row] = {
    "reverse": Row(lambda size, segment: Reverse(segment)),
    "mixflow": Row(lambda size, segment: MixFlow(segment)),
    "mixflow, recomputed gradients": Row(
        lambda size, segment: MixFlow(segment, save_gradients=False)
    ),
    "forward": Row(lambda size, segment: Forward(segment)),
    "forward, in chunks": Row(lambda size, segment: Forward(segment, chunk=3)),
    "forward gradient, whole basis": Row(
        lambda size, segment: ForwardGradient(size, segment, "orthogonal")
    ),
    "forward gradient, in chunks": Row(
        lambda size, segment: ForwardGradient(size, segment, "orthogonal", chunk=3)
    ),
    "zeroth order, whole basis": Row(
        lambda size, segment: ZerothOrder(size, 1e-5, segment, "orthogonal"), 1e-7
    ),
    "zeroth order, in chunks": Row(
        lambda size, segment: ZerothOrder(size, 1e-5, segment, "orthogonal", 2), 1e-7
    ),
}


def made(size: int, segment: int, leave_out: Sequence[str] = ()) -> dict[str, Estimator]:
    """All of them by name, but for those with a word of `leave_out` in their name."""
    return {
        name: row.make(size, segment)
        for name, row in ESTIMATORS.items()
        if not any(word in name for word in leave_out)
    }
