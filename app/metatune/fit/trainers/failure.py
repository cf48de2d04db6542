"""Numbers that are none: where they came up, and what usually cures them."""

from collections.abc import Mapping
from typing import Any, Final

import jax
import numpy as np

from metatune.hypergrad import Hypergradient
from metatune.recipe.schema import InnerOptimizerSpec, in_groups
from metatune.tunables.windows import window_of


class NotFinite(ArithmeticError):
    """An inner loss or a hypergradient is not a number, or infinite.

    Attributes:
        training: what the training was for: hypergradient, validation, test; empty where many were.
        seed: number of the training for that purpose, from 0; None likewise.
        inner_step: the first whose loss is none, from 0; None where all are sound, or unknown.
    """

    def __init__(
        self,
        message: str,
        *,
        training: str = "",
        seed: int | None = None,
        inner_step: int | None = None,
    ):
        """Says what was found, and where.

        Args:
            message: for people.
            training: as of the attribute.
            seed: likewise.
            inner_step: likewise.
        """
        super().__init__(message)
        self.training, self.seed, self.inner_step = training, seed, inner_step

    def line(self, steps: int, windows: Mapping[str, int]) -> dict[str, Any]:
        """Where it came up, for the metrics.

        Args:
            steps: inner steps of the training.
            windows: of each tunable, by its key.

        Returns:
            `why`, what was found without its cures; of what is known `training`, `seed`,
            `inner_step`, `inner_steps`, and `window`, by tunable, from 0.
        """
        why = str(self).split(";")[0]
        found: dict[str, Any] = {"why": why}
        if self.training:
            found |= {"training": self.training, "seed": self.seed}
        if (step := self.inner_step) is not None:
            at = {key: int(window_of(step, count, steps)) for key, count in windows.items()}
            found |= {"inner_step": step, "inner_steps": steps, "window": at}
        return found


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


HYPERGRADIENT: Final = "hypergradient"
"""What a training was for."""


def refuse_not_finite(
    result: Hypergradient,
    point: int,
    seed: int = 0,
    start: int = 0,
    *,
    optimizer: InnerOptimizerSpec | None = None,
) -> None:
    """Checks an estimate before it is followed.

    Args:
        result: the estimate.
        point: the point of the search that it was taken at.
        seed: number of its training.
        start: the first inner step that it has a loss of.
        optimizer: of the recipe, whose fields are named; None for those of one optimizer.

    Raises:
        NotFinite: naming the point of the search, inner step, tunable, and the likeliest cures.
    """
    of: dict[str, Any] = {"training": HYPERGRADIENT, "seed": seed}
    losses = np.asarray(result.diagnostics.losses)
    refuse_diverged(losses, f"point {point} of the search", start=start, optimizer=optimizer, **of)
    if not np.isfinite(float(result.value)):
        raise NotFinite(
            f"point {point} of the search: the held-out objective after the last inner step is "
            f"{float(result.value)}; {_cures(CURES_LOSS, optimizer)}",
            **of,
        )
    for key in not_finite_slices(result.gradient):
        if sides := result.diagnostics.diverged_sides:
            raise NotFinite(
                f"point {point} of the search: the hypergradient of {key} is not finite, as "
                f"{sides} trainings on either side of the meta-parameters diverged, and left "
                f"{result.diagnostics.lost_directions} directions without a derivative; "
                f"{CURES_SIDES}",
                training=HYPERGRADIENT,
            )
        raise NotFinite(
            f"point {point} of the search: the hypergradient of {key} is not finite, though every "
            f"inner loss is; {_cures(CURES_HYPERGRADIENT, optimizer)}",
            **of,
        )


def refuse_diverged(
    losses: np.ndarray,
    where: str,
    *,
    training: str,
    seed: int,
    start: int = 0,
    optimizer: InnerOptimizerSpec | None = None,
) -> None:
    """Checks the losses of an inner training.

    Args:
        losses: [steps].
        where: which training, for the message.
        training: what it is for.
        seed: its number for that.
        start: the inner step of the first loss.
        optimizer: of the recipe, whose fields are named; None for those of one optimizer.

    Raises:
        NotFinite: naming the first inner step whose loss is not finite.
    """
    bad = np.flatnonzero(~np.isfinite(losses))
    if len(bad):
        step = start + int(bad[0])
        raise NotFinite(
            f"{where}, inner step {step}: the inner loss is {losses[bad[0]]}; "
            f"{_cures(CURES_LOSS, optimizer)}",
            training=training,
            seed=seed,
            inner_step=step,
        )


def _cures(hint: str, optimizer: InnerOptimizerSpec | None) -> str:
    return hint if optimizer is None else in_groups(hint, optimizer)


def not_finite_slices(gradient: Mapping[str, Any]) -> list[str]:
    """Keys of the tunables whose slice has an entry that is not finite."""
    return [
        key
        for key, leaf in gradient.items()
        if not all(np.isfinite(np.asarray(x)).all() for x in jax.tree.leaves(leaf))
    ]
