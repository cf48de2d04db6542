"""Numbers that are none: where they came up, and what usually cures them."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from metatune.hypergrad import Hypergradient


class NotFinite(ArithmeticError):
    """An inner loss or a hypergradient is not a number, or infinite."""


CURES_LOSS = (
    "lower inner.optimizer.learning_rate, lengthen the warmup, set inner.optimizer.clip_norm, "
    "or lower outer.optimizer.learning_rate so that the tuned rates move more slowly"
)
CURES_HYPERGRADIENT = (
    "raise inner.optimizer.eps_root (to 1e-10, say), lower inner.optimizer.learning_rate, "
    "or shorten inner.steps"
)
CURES_SIDES = (
    "lower outer.estimator.step, so that both stay nearer to the meta-parameters, lower the "
    "learning rate that the recipe begins with, or bound tune.learning_rates.max_multiplier"
)


def refuse_not_finite(result: Hypergradient, point: int) -> None:
    """Checks an estimate before it is followed.

    Args:
        result: the estimate.
        point: the point of the search that it was taken at.

    Raises:
        NotFinite: naming the point of the search, inner step, tunable, and the likeliest cures.
    """
    refuse_diverged(np.asarray(result.diagnostics.losses), f"point {point} of the search")
    if not np.isfinite(float(result.value)):
        raise NotFinite(
            f"point {point} of the search: the held-out objective after the last inner step is "
            f"{float(result.value)}; {CURES_LOSS}"
        )
    for key in not_finite_slices(result.gradient):
        if sides := result.diagnostics.diverged_sides:
            raise NotFinite(
                f"point {point} of the search: the hypergradient of {key} is not finite, as "
                f"{sides} trainings on either side of the meta-parameters diverged, and left "
                f"{result.diagnostics.lost_directions} directions without a derivative; "
                f"{CURES_SIDES}"
            )
        raise NotFinite(
            f"point {point} of the search: the hypergradient of {key} is not finite, though every "
            f"inner loss is; {CURES_HYPERGRADIENT}"
        )


def refuse_diverged(losses: np.ndarray, where: str) -> None:
    """Checks the losses of an inner training.

    Args:
        losses: [steps].
        where: which training, for the message.

    Raises:
        NotFinite: naming the first inner step whose loss is not finite.
    """
    bad = np.flatnonzero(~np.isfinite(losses))
    if len(bad):
        raise NotFinite(
            f"{where}, inner step {bad[0]}: the inner loss is {losses[bad[0]]}; {CURES_LOSS}"
        )


def not_finite_slices(gradient: Mapping[str, Any]) -> list[str]:
    """Keys of the tunables whose slice has an entry that is not finite."""
    return [
        key
        for key, leaf in gradient.items()
        if not all(np.isfinite(np.asarray(x)).all() for x in jax.tree.leaves(leaf))
    ]
