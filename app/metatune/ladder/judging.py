"""What the losses of a rung come to: gain, retention, the best level, the order of candidates."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from scipy.special import stdtrit
from scipy.stats import spearmanr

from metatune.ladder.candidates import BASELINES, DEFAULT, LEVELS, SWEPT, TUNED, Candidate

CONFIDENCE: Final = 0.95

PARTS: Final = ("rates", "mixture", "by update", "retuned")
"""Of what was tuned, each alone; all of it, read by update; and what a search there finds."""

Losses = Mapping[str, Sequence[float]]
"""Of each candidate by its name, of the same seeds; infinite where a training diverged."""


class Difference(NamedTuple):
    """A mean over pairs of seeds.

    Attributes:
        mean: positive is better for what was tuned.
        error: its standard error.
        low: lower end of the 95 % interval, by Student's t.
        high: upper end.
    """

    mean: float
    error: float
    low: float
    high: float


class Judged(NamedTuple):
    """A rung.

    Attributes:
        gain: of the tuned schedules over the default's, both carried by the rule.
        over_best: over the best baseline, chosen by the losses of these very seeds: the default,
            or the target's text alone, at any level; both are swept to where they turn.
        best: that baseline's name.
        level: of the tuned schedules, the best.
        retention: the gain in that on the proxy; None where that is no gain.
        order: Spearman's rank correlation of the candidates' means with theirs on the proxy; None
            of the proxy.
        low_gain: at a tenth of all rates; None where that wasn't trained.
        rates_gain: of the tuned rates alone; None where not both were tuned.
        mixture_gain: of the tuned mixture alone; likewise.
        by_update_gain: of the tuned schedules read by update, not by share of the training; None
            where that is the same, or wasn't trained.
        search_gain: of what a search at the rung itself has found; None where there was none.
        of_search: the gain in that; None likewise, and where that is no gain.
    """

    gain: Difference
    over_best: Difference
    best: str
    level: float
    retention: float | None
    order: float | None
    low_gain: Difference | None
    rates_gain: Difference | None
    mixture_gain: Difference | None
    by_update_gain: Difference | None = None
    search_gain: Difference | None = None
    of_search: float | None = None


def difference(default: Sequence[float], tuned: Sequence[float]) -> Difference:
    """Default minus tuned, in pairs; not a number where one of them diverged."""
    apart = np.subtract(default, tuned)
    if not np.isfinite(apart).all():
        sign = math.inf if np.isfinite(tuned).all() else -math.inf
        return Difference(sign, math.nan, -math.inf, math.inf)
    mean, error = float(apart.mean()), float(apart.std(ddof=1) / math.sqrt(len(apart)))
    half = float(stdtrit(len(apart) - 1, (1 + CONFIDENCE) / 2)) * error
    return Difference(mean, error, mean - half, mean + half)


def judge(losses: Losses, proxy: Losses | None, low: float) -> Judged:
    """What a rung comes to.

    Args:
        losses: of the rung.
        proxy: of the proxy; None if this is it.
        low: the level that only mixtures are tried at.
    """
    gain = difference(losses[DEFAULT.name], losses[TUNED.name])
    baselines = [Candidate(which, level) for which in BASELINES for level in SWEPT]
    best = _best(losses, baselines).name
    level = _best(losses, [Candidate("tuned", level) for level in LEVELS]).level
    rates, mixture, by_update, retuned = (
        difference(losses[DEFAULT.name], losses[part]) if part in losses else None for part in PARTS
    )
    at_low = [Candidate(schedules, low).name for schedules in ("default", "tuned")]
    return Judged(
        gain,
        difference(losses[best], losses[TUNED.name]),
        best,
        level,
        _retention(gain, losses if proxy is None else proxy),
        None if proxy is None else _order(losses, proxy),
        difference(*(losses[name] for name in at_low)) if at_low[0] in losses else None,
        rates,
        mixture,
        by_update,
        retuned,
        None if retuned is None else _share(gain, retuned),
    )


def as_json(value: Any) -> Any:
    """Plain values; null for what isn't finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return as_json(value._asdict())  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(value, Mapping):
        return {key: as_json(entry) for key, entry in value.items()}
    return [as_json(entry) for entry in value] if isinstance(value, list | tuple) else value


def _best(losses: Losses, among: Sequence[Candidate]) -> Candidate:
    trained = [each for each in among if each.name in losses]
    return min(trained, key=lambda each: np.mean(losses[each.name]))


def _retention(gain: Difference, proxy: Losses) -> float | None:
    return _share(gain, difference(proxy[DEFAULT.name], proxy[TUNED.name]))


def _share(gain: Difference, whole: Difference) -> float | None:
    """A gain in another; None where that is none beyond noise."""
    return gain.mean / whole.mean if whole.low > 0 and math.isfinite(whole.mean) else None


def _order(losses: Losses, proxy: Losses) -> float | None:
    names = sorted(set(losses) & set(proxy))
    here, there = ([float(np.mean(each[name])) for name in names] for each in (losses, proxy))
    found = float(spearmanr(here, there)[0])  # pyright: ignore[reportArgumentType]
    return found if math.isfinite(found) else None
