"""The simplest schedules that keep most of the gain: engineers ship the simple ones.

One thing after the other is made as simple as it goes, the others staying as they are by then: the
factors of the learning rates, the windows of the mixture, how round its shares are. Of the rates
the structures of `structure.candidates` are looked at, of ever more numbers, by bisection; of each
thing the simplest is taken that keeps `KEPT` of the gain in validation.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np

from metatune.artefact import Artefact
from metatune.artefact.curves import counted
from metatune.fit.measuring import paired
from metatune.verdict.statistics import ALPHA, TUNED, Outcome, PairedDifference, difference
from metatune.verdict.structure import SIZES, Structure, candidates
from metatune.verdict.surgery import simpler_shares, structured_rates, window_logs

KEPT: Final = 0.9
"""Of the gain of the tuned schedules."""

DIGITS: Final = 2
"""Significant digits of a factor of learning rates."""

GRAINS: Final = (0.05, 0.01, 0.0)
"""Of shares; zero leaves them as they are."""

FEW: Final = (1, 2)
"""Windows of a mixture that are tried before as many as were tuned."""

TRIED: Final = math.ceil(math.log2(len(SIZES) + 1)) + len(FEW) + len(GRAINS) - 1
"""Schedules that are tried at most: structures by bisection, mixtures and grains."""

NAME: Final = "simple"


class Simple(NamedTuple):
    """The schedules that were found.

    Attributes:
        artefact: they.
        words: what they are.
        kept: of the gain, in validation.
    """

    artefact: Artefact
    words: str
    kept: float


class _Choice(NamedTuple):
    """How simple something may be.

    Attributes:
        rates: how learning rates share factors; None for as they were tuned.
        mixture: windows of the mixture; None for as they were tuned.
        grain: of the shares.
    """

    rates: Structure | None = None
    mixture: int | None = None
    grain: float = GRAINS[-1]


def simplest(
    default: Artefact,
    tuned: Artefact,
    windows: Mapping[str, int],
    losses: Callable[[str, Artefact], Sequence[float]],
) -> Simple | None:
    """The simplest schedules that keep `KEPT` of the gain; None where none is simpler.

    Args:
        default: the recipe's own schedules.
        tuned: those that were tuned.
        windows: of the learning rates and of the mixture, by tunable; of those that are tuned.
        losses: of schedules by a name, over some seeds, always the same.
    """
    multipliers = tuned.learning_rates.multipliers
    before, after = (np.mean(losses(*each)) for each in (("default", default), ("tuned", tuned)))
    gain = float(before - after)
    if (multipliers is None and tuned.mixture is None) or not np.isfinite(gain) or gain <= 0:
        return None

    def made(choice: _Choice) -> Artefact:
        found = tuned
        if choice.rates is not None:
            found = structured_rates(default, found, choice.rates, DIGITS)
        if choice.mixture is not None:
            found = simpler_shares(found, choice.mixture, choice.grain)
        return found

    def kept(choice: _Choice) -> float:
        name = f"{NAME}: {_text(choice)}"
        return float((before - np.mean(losses(name, made(choice)))) / gain)

    at = _Choice()
    if multipliers is not None:
        count = windows.get("learning_rates", 1)
        numbers = len(multipliers.groups) * len(multipliers.knots)
        ways = candidates(window_logs(default, tuned, count), numbers)
        at = _least([at._replace(rates=each) for each in ways], kept) or at
    if tuned.mixture is not None:
        count = windows.get("mixture", 1)
        options = [at._replace(mixture=few) for few in FEW if few < count]
        at = next((each for each in options if kept(each) >= KEPT), at)
        rounder = [at._replace(mixture=at.mixture or count, grain=grain) for grain in GRAINS[:-1]]
        at = next((each for each in rounder if kept(each) >= KEPT), at)
    if at == _Choice():
        return None
    return Simple(made(at), _words(at), kept(at))


def _least(choices: Sequence[_Choice], kept: Callable[[_Choice], float]) -> _Choice | None:
    """The first that keeps enough, of choices that keep ever more; None where the last doesn't."""
    low, high = 0, len(choices)
    while low < high:
        middle = (low + high) // 2
        if kept(choices[middle]) >= KEPT:
            high = middle
        else:
            low = middle + 1
    return choices[low] if low < len(choices) else None


def _text(choice: _Choice) -> str:
    """The name of a choice in the record."""
    found = [] if choice.rates is None else [f"{choice.rates.numbers} factors"]
    if choice.rates is not None:
        kind = "times" if choice.rates.product else "by"
        found.append(f"{choice.rates.clusters} clusters {kind} {choice.rates.stretches} stretches")
    if choice.mixture is not None:
        found.append(f"{choice.mixture} mixtures, grain {choice.grain}")
    return ", ".join(found)


def _words(choice: _Choice) -> str:
    """What the schedules are, for people."""
    lines = []
    if (rates := choice.rates) is not None:
        lines.append(f"{counted(rates.numbers, 'factor')} of the base schedule ({rates.words})")
    if choice.mixture is not None:
        moving = "one mixture" if choice.mixture == 1 else f"{choice.mixture} mixtures"
        lines.append(f"{moving}, shares in steps of {choice.grain:.0%}" if choice.grain else moving)
    return "; ".join(lines)


def measured(
    simple: Artefact, before: Sequence[float], after: Sequence[float], first: int
) -> Artefact:
    """The simple schedules with a result of their own, measured on the contest's seeds.

    Seeds with which the default diverged are left out: a mean has no use for them.

    Args:
        simple: the schedules; they are of no point of the search.
        before: losses of the default.
        after: theirs, finite.
        first: number of the first of these test trainings.
    """
    seeds = [seed for seed, loss in enumerate(before[: len(after)]) if math.isfinite(loss)]
    befores, afters = ([losses[seed] for seed in seeds] for losses in (before, after))
    result = {
        **simple.result,
        "objective_before": float(np.mean(befores)),
        "objective_after": float(np.mean(afters)),
        **paired(befores, afters),
        "held_out_seeds": [first + seed for seed in seeds],
        "before": befores,
        "after": afters,
    }
    for key in ("sharing", "search", "population"):
        result.pop(key, None)
    return replace(
        simple, result=result, origin=None, certificate=None, transfer=None, verdict=None
    )


def ships(outcome: Outcome, losses: Sequence[float]) -> tuple[bool, PairedDifference]:
    """Whether the simple schedules are to be used, and by how much they are behind the tuned.

    They are where they keep `KEPT` of the gain on the test split too, and were shown to be better
    than the default and than each rival, as was what they are of.

    Args:
        outcome: of the contest.
        losses: theirs, on its seeds.
    """
    level = ALPHA / len(outcome.plan)
    behind = difference(losses, outcome.losses[TUNED], level)
    ahead = [difference(outcome.losses[name], losses, level) for name in outcome.rivals]
    keeps = behind.mean <= (1 - KEPT) * outcome.gain.mean
    return keeps and all(each.low > 0 or each.mean == math.inf for each in ahead), behind
