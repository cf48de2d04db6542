"""The simplest schedules that keep most of the gain: engineers ship the simple ones.

One thing after the other is made as simple as it goes, the others staying as they are by then:
which parameters share a factor (all, each kind, or those whose factors are alike), the windows of
the factors, the windows of the mixture, how round its shares are. Of each the simplest is taken
that keeps `KEPT` of the gain in validation.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

import numpy as np

from metatune.artefact import Artefact
from metatune.artefact.curves import counted
from metatune.fit.measuring import paired
from metatune.verdict.statistics import ALPHA, TUNED, Outcome, PairedDifference, difference
from metatune.verdict.surgery import ALL, clusters, kinds, numbers, simpler_rates, simpler_shares

KEPT: Final = 0.9
"""Of the gain of the tuned schedules."""

DIGITS: Final = 2
"""Significant digits of a factor of learning rates."""

GRAINS: Final = (0.05, 0.01, 0.0)
"""Of shares; zero leaves them as they are."""

FEW: Final = (1, 2)
"""Windows that are tried before as many as were tuned."""

CLUSTERS: Final = (2, 3, 4, 6, 8)
"""Of parameters whose tuned factors are alike, that may share one."""

TRIED: Final = 2 + len(CLUSTERS) + len(FEW) + len(FEW) + len(GRAINS) - 1
"""Schedules that are tried at most: as many ways to share, windows, mixtures and grains."""

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
        groups: how learning rates share factors.
        windows: of the factors.
        mixture: windows of the mixture.
        grain: of the shares.
    """

    groups: str
    windows: int
    mixture: int
    grain: float


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
    rated, mixed = multipliers is not None, tuned.mixture is not None
    before, after = (np.mean(losses(*each)) for each in (("default", default), ("tuned", tuned)))
    gain = float(before - after)
    if not (rated or mixed) or not np.isfinite(gain) or gain <= 0:
        return None
    few = len(multipliers.groups) if multipliers is not None else 0
    own: dict[str, dict[str, list[int]]] = {
        ALL: {ALL: list(range(len(tuned.learning_rates.parameters)))},
        "kind": kinds(tuned),
        **{
            f"{count} clusters": clusters(default, tuned, count)
            for count in CLUSTERS
            if count < few
        },
    }
    if multipliers is not None:
        column = {name: i for i, name in enumerate(tuned.learning_rates.parameters)}
        own["as tuned"] = {
            label: [column[name] for name in names] for label, names in multipliers.members.items()
        }
    whole = _Choice(
        "as tuned", windows.get("learning_rates", 1), windows.get("mixture", 1), GRAINS[-1]
    )

    def made(choice: _Choice) -> Artefact:
        found = tuned
        if rated:
            groups = own[choice.groups]
            found = simpler_rates(default, found, groups, choice.windows, DIGITS)
        if mixed:
            found = simpler_shares(found, choice.mixture, choice.grain)
        return found

    def kept(choice: _Choice) -> float:
        return float((before - np.mean(losses(f"{NAME}: {_text(choice)}", made(choice)))) / gain)

    at = whole
    ways: list[tuple[str, Sequence[Any]]] = []
    if rated:
        fewer = [name for name, each in own.items() if len(each) < len(own[whole.groups])]
        fewer.sort(key=lambda name: len(own[name]))
        ways += [("groups", fewer), ("windows", _fewer(whole.windows))]
    if mixed:
        ways += [("mixture", _fewer(whole.mixture)), ("grain", GRAINS[:-1])]
    for field, simpler in ways:
        for value in simpler:
            tried = at._replace(**{field: value})
            if kept(tried) >= KEPT:
                at = tried
                break
    if at == whole:
        return None
    return Simple(made(at), _words(at, made(at), rated, mixed), kept(at))


def _fewer(windows: int) -> tuple[int, ...]:
    return tuple(count for count in FEW if count < windows)


def _text(choice: _Choice) -> str:
    return ", ".join(f"{key} {value}" for key, value in choice._asdict().items())


def _words(choice: _Choice, made: Artefact, rated: bool, mixed: bool) -> str:
    """What the schedules are, for people."""
    lines = []
    if rated:
        how = {
            ALL: "one for all parameters",
            "kind": "one for each kind of parameter",
            "as tuned": "as many groups as were tuned",
        }
        each = how.get(choice.groups, f"{choice.groups} of parameters")
        factors = counted(numbers(made) or 0, "factor")
        lines.append(f"{factors} of the base schedule ({each})")
    if mixed:
        moving = "one mixture" if choice.mixture == 1 else f"{choice.mixture} mixtures"
        lines.append(f"{moving}, shares in steps of {choice.grain:.0%}" if choice.grain else moving)
    return "; ".join(lines)


def measured(
    simple: Artefact, before: Sequence[float], after: Sequence[float], first: int
) -> Artefact:
    """The simple schedules with a result of their own, measured on the contest's seeds.

    Args:
        simple: the schedules; they are of no point of the search.
        before: losses of the default.
        after: theirs.
        first: number of the first of these test trainings.
    """
    result = {
        **simple.result,
        "objective_before": float(np.mean(before)),
        "objective_after": float(np.mean(after)),
        **paired(list(before), list(after)),
        "held_out_seeds": list(range(first, first + len(after))),
        "before": list(before),
        "after": list(after),
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
