"""Differences of whole trainings along the direction of a block."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from metatune.hypergrad import Member
from metatune.hypergrad.estimator import Listener
from metatune.hypergrad.smoothing import smoothed_slope
from metatune.tunables.blocks import Row, WindowBlock


def slopes(
    trainings: Sequence[Member],
    options: Mapping[str, Any],
    block: WindowBlock,
    direction: Row,
    *,
    step: float,
    listen: Callable[[str], Listener],
) -> np.ndarray | None:
    """The slopes of the smoothed objective of each training, [trainings].

    Args:
        trainings: of an outer step.
        options: the arguments of `hypergradient` that all have.
        block: along which.
        direction: in it, [n].
        step: of the differences.
        listen: makes what is told how far the differences of a name are.

    Returns:
        None where one diverged at every step that was tried.
    """
    eta = options["eta"]
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), dict(eta))
    along = block.put(zeros, direction)
    found = [
        smoothed_slope(
            options["problem"] if each.problem is None else each.problem,
            eta,
            along,
            each.begin(),
            each.batches,
            options["outer_batches"],
            step=step,
            steps=options["steps"],
            points=options["points"],
            segment=options["estimator"].segment,
            listener=listen(f"differences, {block.name}"),
        )
        for each in trainings
    ]
    return None if None in found else np.asarray(found, np.float64)
