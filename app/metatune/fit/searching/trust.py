"""Outer steps that validation contradicts are taken back, and those that follow are halved.

Whether one point is worse than another is a paired question: every point is validated by the same
trainings. Of d, the differences of their losses, the standard error is that of all points so far
together, each compared with the one before it, since one pair of points has few seeds.
"""

import math
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from metatune.fit.searching.search import Search
from metatune.recipe.schema import OnlineSpec, OuterSpec, Recipe

SURE: Final = 2.0
"""Standard errors by which a point must be worse than the best."""

ENOUGH: Final = 3
"""Degrees of freedom that a standard error has, at least."""

LEAST: Final = 1 / 16
"""Of a step's size, below which it isn't halved any more."""


class Trust(NamedTuple):
    """What a search keeps to judge its next point by.

    Attributes:
        scale: of outer steps, 1 at first; float32.
        best: losses of the trainings that validate, at the best point, [seeds] float32.
        last: at the latest point that was validated, likewise.
        squares: sum over points of the squared deviations of their differences to the one before.
        freedom: its degrees of freedom, int32.
        opt_state: of the outer optimizer at the best point.
    """

    scale: jax.Array
    best: jax.Array
    last: jax.Array
    squares: jax.Array
    freedom: jax.Array
    opt_state: Any


class TakenBack(NamedTuple):
    """Outer steps that were taken back.

    Attributes:
        to: the best point, that the search went back to.
        rise: of the held-out loss over it.
        standard_error: of that.
        scale: of the outer steps from here on, in those of the recipe.
    """

    to: int
    rise: float
    standard_error: float
    scale: float

    def line(self) -> dict[str, Any]:
        """For the metrics: null for what isn't finite, where a training diverged."""
        found = self._asdict()
        return {key: value if math.isfinite(value) else None for key, value in found.items()}


def trusts(recipe: Recipe) -> bool:
    """Whether a search keeps to what validation says.

    Not one along life-long trainings, of which no point is ever seen again; nor with an average of
    points, which may be the best; nor with shared rates, whose blocks belong to the latest point.
    """
    outer = recipe.outer
    shared = recipe.tune.learning_rates and recipe.tune.learning_rates.sharing
    unrolls = [outer.unroll, *(phase.unroll for phase in outer.phases or ())]
    online = any(isinstance(each, OnlineSpec) for each in unrolls)
    return outer.signal != "off" and outer.ema is None and not shared and not online


def begin(outer: OuterSpec, opt_state: Any) -> Trust:
    """Of a search, or of a phase, that begins."""
    nothing = jnp.full(outer.validation.seeds, jnp.inf, jnp.float32)
    return Trust(
        jnp.ones((), jnp.float32),
        nothing,
        nothing,
        jnp.zeros((), jnp.float32),
        jnp.zeros((), jnp.int32),
        opt_state,
    )


def judge(search: Search, losses: tuple[float, ...]) -> tuple[Search, TakenBack | None]:
    """The search as it goes on from a point that was validated.

    Args:
        search: at the point; its best is known.
        losses: of the trainings that validate; none where one diverged.

    Returns:
        The search, at its best point where the losses contradict the steps since that; and what was
        taken back.
    """
    trust: Trust = search.trust
    if not losses:
        if search.best_step < 0:
            return search, None
        return _back(search, trust, math.inf, math.nan)
    now = np.asarray(losses, np.float32)
    last, best = np.asarray(trust.last, np.float64), np.asarray(trust.best, np.float64)
    if np.isfinite(last).all() and len(now) > 1:
        apart = now - last
        squares = float(np.sum((apart - apart.mean()) ** 2))
        trust = trust._replace(
            squares=trust.squares + jnp.float32(squares), freedom=trust.freedom + len(now) - 1
        )
    trust = trust._replace(last=jnp.asarray(now))
    if search.best_step == search.step:
        trust = trust._replace(best=jnp.asarray(now), opt_state=search.opt_state)
        return search._replace(trust=trust), None
    search = search._replace(trust=trust)
    freedom = int(trust.freedom)
    if freedom < ENOUGH or not np.isfinite(best).all():
        return search, None
    error = math.sqrt(float(trust.squares) / freedom / len(now))
    rise = float((now - best).mean())
    if rise <= SURE * error:
        return search, None
    return _back(search, trust, rise, error)


def _back(
    search: Search, trust: Trust, rise: float, error: float
) -> tuple[Search, TakenBack | None]:
    scale = max(float(trust.scale) / 2, LEAST)
    trust = trust._replace(scale=jnp.float32(scale), last=trust.best)
    back = search._replace(eta=search.best_eta, opt_state=trust.opt_state, trust=trust)
    return back, TakenBack(search.best_step, rise, error, scale)
