"""Which way a search follows where growth dominates: chosen once for a horizon, by measuring.

A few trainings of one η, each with seeds of its own, are differentiated every way there is. What is
true of a window is taken from differences of the same trainings where growth dominates it, and from
the exact hypergradient elsewhere. Of t_m, the true slope of training m of M along a direction of
the window, and c_m, that by a way,

    bias² = max(0, mean(c - t)² - var(c - t) / M)
    n = ⌈var(c) / ((mean(t) / CLEAR)² - bias²)⌉

are so many trainings that their mean by this way is off by no more than 1 / `CLEAR` of the slope,
bias and noise together; no number is enough where the bias alone is more. A way *carries* a window
whose true slope is told from zero where n trainings can be paid. The way that carries most is
taken, with as many trainings as it needs; windows that it doesn't carry are followed by
differences. All of it stays within `SignalSpec.cost` times the search's plain hypergradients.

Source: the bias-variance tradeoff of truncated and smoothed estimates of Metz et al., 2019, section
3, taken window by window; variances that are unbiased for M trainings.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from metatune.fit.searching.search import Search
from metatune.fit.searching.truncation import Span, next_span
from metatune.fit.signal.memory import CLEAR
from metatune.inner.choosing import WAYS
from metatune.recipe.phases import Phase
from metatune.recipe.schema import MixFlowSpec, Recipe
from metatune.tunables.blocks import Row

STALE: Final = 10.0
"""Times the growth that a window was measured at, above which that says no more of it."""


class Evidence(NamedTuple):
    """What trainings say of a block along its direction.

    Attributes:
        number: the block's.
        dominated: by growth.
        truth: the true slope of each training, [M].
        ways: by name, that of each, [M].
    """

    number: int
    dominated: bool
    truth: Row
    ways: Mapping[str, Row]


class FollowedWay(NamedTuple):
    """What a search follows through the rest of a horizon: numbers and names, as a checkpoint has.

    Attributes:
        phase: of the search.
        steps: inner steps of the horizon.
        since: the outer step that measured it.
        until: the outer step that it ends before.
        way: of `WAYS`.
        trainings: that each hypergradient is the mean of.
        carried: blocks that it carries though growth dominates them.
        grown: the growth behind each of these when it was measured.
        spare: what is left for differences, in gradients per inner step.
        spent: of that.
        active: whether the next outer step follows it: not while nothing is dominated.
    """

    phase: int
    steps: int
    since: int
    until: int
    way: str
    trainings: int
    carried: Sequence[int]
    grown: Sequence[float]
    spare: float
    spent: float = 0.0
    active: bool = True

    def carries(self, growth: Sequence[float] | Row) -> frozenset[int]:
        """The blocks that it still carries: growth may have come to `STALE` times what it was.

        Args:
            growth: behind each block now, [blocks].
        """
        known = zip(self.carried, self.grown, strict=True)
        return frozenset(i for i, before in known if growth[i] <= STALE * before)

    def pairs(self, step: int, trainings: int) -> int:
        """Differences that an outer step can pay, of so many trainings on either side each.

        What there is is spread evenly over the outer steps that are left of the horizon.
        """
        part = (step - self.since) / max(1, self.until - self.since - 1)
        return max(0, int((self.spare * min(part, 1.0) - self.spent) // (2 * trainings)))


def standing(search: Search, phase: Phase, steps: int) -> FollowedWay | None:
    """What was chosen for the horizon that a search is in; None where nothing was.

    Args:
        search: where it stands.
        phase: the one that it is in.
        steps: inner steps that are differentiated.
    """
    if not search.choice:
        return None
    found = FollowedWay(**search.choice)
    current = (found.phase, found.steps) == (phase.number, steps) and search.step < found.until
    return found if current else None


def in_force(search: Search, phase: Phase, span: Span) -> tuple[Phase, int]:
    """The phase with the way that an outer step follows, and how many trainings it takes."""
    found = standing(search, phase, span.steps)
    if found is None or not found.active:
        return phase, 1
    return by_way(phase, found.way), found.trainings


def by_way(phase: Phase, way: str) -> Phase:
    """A phase whose estimator damps the adjoint as a way does: of MixFlow."""
    if not isinstance(phase.estimator, MixFlowSpec):
        return phase
    estimator = dataclasses.replace(phase.estimator, damping=WAYS[way])
    return dataclasses.replace(phase, estimator=estimator)


def left(recipe: Recipe, phase: Phase, search: Search, steps: int) -> int:
    """Outer steps of a phase that differentiate so many inner steps from here on, one at least."""
    last = search.phase_start + phase.steps
    count = 1
    while search.step + count < last:
        then = next_span(recipe, phase, search._replace(step=search.step + count))
        if then.steps != steps:
            break
        count += 1
    return count


def is_sure(values: Row) -> bool:
    """Whether the mean over trainings is told from zero."""
    values = np.asarray(values, np.float64)
    if not np.isfinite(values).all():
        return False
    return bool(abs(values.mean()) > CLEAR * values.std(ddof=1) / math.sqrt(len(values)))


def trainings_needed(truth: Row, found: Row) -> float:
    """Trainings of a way whose mean is off by no more than 1 / `CLEAR` of the true slope.

    Args:
        truth: the true slope of each training, [M].
        found: that by the way, [M].

    Returns:
        One or more; infinite where the bias alone is more, or something isn't finite.
    """
    truth, found = np.asarray(truth, np.float64), np.asarray(found, np.float64)
    if not (np.isfinite(truth).all() and np.isfinite(found).all()):
        return math.inf
    off = found - truth
    bias = max(0.0, off.mean() ** 2 - off.var(ddof=1) / len(off))
    room = (truth.mean() / CLEAR) ** 2 - bias
    return max(1.0, math.ceil(found.var(ddof=1) / room)) if room > 0 else math.inf


def choose(evidence: Sequence[Evidence], most: int) -> tuple[str, int, tuple[int, ...]]:
    """The way that carries most dominated blocks, and is right where exact is.

    Of those that carry as many the one with fewest trainings, then the least biased.

    Args:
        evidence: of blocks.
        most: trainings that there may be.

    Returns:
        Its name, how many trainings, and the numbers of the blocks that it carries: exact, of one
        training, where no way carries any.
    """
    sure = [each for each in evidence if is_sure(each.truth)]
    best: tuple[str, int, tuple[int, ...]] = ("exact", 1, ())
    for way in WAYS:
        count = {each.number: trainings_needed(each.truth, each.ways[way]) for each in sure}
        if any(math.isinf(count[each.number]) for each in sure if not each.dominated):
            continue
        carried = {
            each.number: count[each.number]
            for each in sure
            if each.dominated and count[each.number] <= most
        }
        trainings = int(max(carried.values(), default=1))
        if (len(carried), -trainings) > (len(best[2]), -best[1]):
            best = (way, trainings, tuple(sorted(carried)))
    return best


def told(each: Evidence) -> dict[str, Any]:
    """What was seen of a block, as plain JSON values; null for what isn't finite.

    Returns:
        `slope`, its standard `error`, whether it is `sure`; and by way the `mean` and its `error`,
        and the `trainings` that would be needed.
    """
    found = {
        way: {
            **_mean(values),
            "trainings": _finite(trainings_needed(each.truth, values)),
        }
        for way, values in each.ways.items()
    }
    slope = _mean(each.truth)
    return {
        "dominated": each.dominated,
        "slope": slope["mean"],
        "error": slope["error"],
        "sure": is_sure(each.truth),
        "ways": found,
    }


def _mean(values: Row) -> dict[str, float | None]:
    with np.errstate(invalid="ignore", over="ignore"):
        values = np.asarray(values, np.float64)
        error = float(values.std(ddof=1)) / math.sqrt(len(values))
        return {"mean": _finite(float(values.mean())), "error": _finite(error)}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
