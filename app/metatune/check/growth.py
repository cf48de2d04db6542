"""Growth: how many times the adjoint grows on its way back, behind each window of what is tuned.

Where training is chaotic the derivative of a window that lies early is that of one trajectory out
of many, and says nothing of the others. It is told by the norm of the adjoint behind the window,
in the least that it was later in training; of several seeds the median.

A search doesn't follow such a derivative alone where `outer.signal` is on, so that growth by itself
is amber: differences, which are compared beside it, tell whether the derivative misleads.

Source: Metz, Freeman, Schoenholz & Kachman, Gradients are Not All You Need, 2021, section 3.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from metatune.check.levels import CHAOS, GREEN, Finding
from metatune.check.numbers import Numbers

LIMIT: Final = 10.0
"""Times the least norm of the adjoint from where a window is dominated by growth."""


@dataclass(frozen=True)
class Dominance:
    """How the adjoint grew.

    Attributes:
        limit: from where a window is dominated by growth.
        windows: times that the adjoint behind each grew, by its name; none where nothing is
            windowed, or the estimator has no adjoint.
        dominated: the names of those that are dominated.
        origin: of the seed whose growth is largest, as of `metatune.inner.origin`; None where no
            window is dominated.
        finding: what it comes to.
    """

    limit: float
    windows: Mapping[str, float]
    dominated: tuple[str, ...]
    origin: Mapping[str, Any] | None
    finding: Finding


def judge_growth(numbers: Numbers) -> Dominance:
    """What the growth of the adjoints comes to."""
    samples = [sample for sample in numbers.samples if len(sample.grown)]
    if not samples:
        return Dominance(LIMIT, {}, (), None, GREEN)
    grown = np.stack([sample.grown for sample in samples])
    of_each = dict(zip(numbers.blocks, np.median(grown, axis=0).tolist(), strict=True))
    dominated = tuple(name for name, times in of_each.items() if times >= LIMIT)
    if not dominated:
        return Dominance(LIMIT, of_each, (), None, GREEN)
    worst = samples[int(np.argmax(grown.max(axis=1)))]
    return Dominance(LIMIT, of_each, dominated, worst.origin, Finding("amber", (CHAOS,)))
