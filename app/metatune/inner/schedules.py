"""Base schedules: the learning rate of each inner step before anything is tuned."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float64, Int

from metatune.recipe import schema
from metatune.tunables.optimizer_groups import Places, places
from metatune.tunables.shapes import Names

Steps = Int[np.ndarray, "steps"]
Fractions = Float64[np.ndarray, "steps"]
"""Of the peak, in each step."""


def base_rates(
    schedule: schema.ScheduleSpec, peak: float, steps: int
) -> Float64[np.ndarray, "{steps}"]:
    """The base learning rate of every update, absolute.

    During a warmup of w steps the rate of update t is `peak (t + 1) / (w + 1)`, so that the first
    update isn't lost; after it the schedules are those of optax at the same steps.

    Args:
        schedule: which schedule.
        peak: the rate that the schedule is a fraction of.
        steps: horizon of the inner training.
    """
    warmup = round(schedule.warmup * steps)
    t = np.arange(steps)
    after = SHAPES[type(schedule)](schedule, t, warmup, steps)
    return peak * np.where(t < warmup, (t + 1) / (warmup + 1), after)


class BaseRates(NamedTuple):
    """The base rates of every update, and which of them each parameter has.

    Attributes:
        rates: of each optimizer, absolute.
        places: a tree like the parameters, of places in `rates`.
    """

    rates: tuple[Float64[np.ndarray, "steps"], ...]
    places: Places


def base_rates_of(optimizer: schema.InnerOptimizerSpec, names: Names, steps: int) -> BaseRates:
    """The base rates of a recipe's optimizer, or of each of those side by side.

    Args:
        optimizer: the recipe's choice.
        names: `ParameterNames` at the leaves of a tree like the parameters.
        steps: horizon of the inner training.

    Raises:
        RecipeError: as of `assigned`.
    """
    if isinstance(optimizer, schema.GroupsSpec):
        peaks = [group.learning_rate for group in optimizer.groups]
        at = places(optimizer, names)
    else:
        peaks, at = [optimizer.learning_rate], jax.tree.map(lambda _: 0, names)
    rates = tuple(base_rates(optimizer.schedule, peak, steps) for peak in peaks)
    return BaseRates(rates, at)


def _constant(schedule: schema.ConstantSpec, t: Steps, warmup: int, steps: int) -> Fractions:
    return np.ones_like(t, np.float64)


def _cosine(schedule: schema.CosineSpec, t: Steps, warmup: int, steps: int) -> Fractions:
    progress = (t - warmup) / max(steps - warmup, 1)
    return schedule.final + (1 - schedule.final) * 0.5 * (1 + np.cos(np.pi * progress))


def _wsd(schedule: schema.WarmupStableDecaySpec, t: Steps, warmup: int, steps: int) -> Fractions:
    decay = round(schedule.decay * steps)
    progress = np.clip((t - (steps - decay)) / max(decay, 1), 0, 1)
    return 1 - (1 - schedule.final) * progress


SHAPES: dict[type, Callable[..., Fractions]] = {
    schema.ConstantSpec: _constant,
    schema.CosineSpec: _cosine,
    schema.WarmupStableDecaySpec: _wsd,
}
