"""What is trained at every rung: the default and the tuned schedules, at several levels.

Beside a tuned mixture stands the baseline that anyone would have tried, the target's text alone,
and each of rates and mixture by itself, to tell what carries over.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, Final, Literal, NamedTuple

import numpy as np

from metatune.artefact import Artefact, Mixture
from metatune.artefact.document import held

LEVELS: Final = (1.0, 0.5, 2.0)
"""Of all rates of a candidate: whether the optimum stays at one."""

LOW: Final = 0.1
"""Of all rates, to see whether a mixture's rank flips with them.

Source: arXiv 2512.24503, 2025, as cited in the docs: rankings of data flip with the rate.
"""

Schedules = Literal[
    "default",
    "tuned",
    "target",
    "rates",
    "mixture",
    "by update",
    "default constant",
    "target constant",
    "retuned",
]
"""The recipe's own, those that were tuned, the recipe's own on the target's text alone; of what was
tuned the learning rates alone, the mixture alone, and all of it, read by update instead of by share
of the training; the first and the third at rates that stay where they are highest; and what a
search at the rung itself has found."""


FARTHEST: Final = 16.0
"""Times the carried rates, or one in so many: as far as baselines are swept."""

SWEPT: Final = tuple(2.0**power for power in range(-4, 5))
"""The levels of such a sweep."""

CONSTANT: Final[tuple[Schedules, ...]] = ("default constant", "target constant")

BASELINES: Final[tuple[Schedules, ...]] = ("default", "target", *CONSTANT)


class Candidate(NamedTuple):
    """Schedules at a level.

    Attributes:
        schedules: which.
        level: of all their learning rates.
    """

    schedules: Schedules
    level: float

    @property
    def name(self) -> str:
        """`tuned`, `default x0.5`."""
        return self.schedules if self.level == 1 else f"{self.schedules} x{self.level:g}"


DEFAULT: Final = Candidate("default", 1.0)
TUNED: Final = Candidate("tuned", 1.0)


def sources(default: Artefact, tuned: Artefact) -> dict[Schedules, Artefact]:
    """The schedules that are trained, on the proxy.

    Args:
        default: the recipe's own.
        tuned: those that were tuned.
    """
    found: dict[Schedules, Artefact] = {"default": default, "tuned": tuned}
    found["default constant"] = constant(default)
    if (alone := target_alone(default)) is not None:
        found["target"] = alone
        found["target constant"] = constant(alone)
    if tuned.mixture is not None and tuned.learning_rates.multipliers is not None:
        found["rates"] = replace(default, learning_rates=tuned.learning_rates)
        found["mixture"] = replace(default, mixture=tuned.mixture)
    return found


def candidates(
    found: Collection[Schedules], *, low: bool, constants: bool
) -> tuple[Candidate, ...]:
    """All that are trained, the two of the gain first.

    Args:
        found: the schedules that there are.
        low: whether the order at a tenth of all rates is asked for, as of a tuned mixture.
        constants: whether baselines at constant rates are trained, too.
    """
    at_low = (LOW,) if low else ()
    levels: dict[Schedules, tuple[float, ...]] = {
        "default": (*LEVELS, *at_low),
        "tuned": (*LEVELS, *at_low),
        "target": LEVELS,
        **(dict.fromkeys(CONSTANT, LEVELS) if constants else {}),
        "rates": (1.0,),
        "mixture": (1.0,),
        "by update": (1.0,),
        "retuned": (1.0,),
    }
    ordered = [Candidate(which, level) for which in levels for level in levels[which]]
    there = [each for each in ordered if each.schedules in found]
    return tuple(sorted(there, key=lambda each: each.name not in (DEFAULT.name, TUNED.name)))


def further(losses: Mapping[str, Sequence[float]]) -> tuple[Candidate, ...]:
    """Levels of the baselines beyond those that were trained, where the best is at their end.

    A baseline that would be better still at other rates is none: it is swept to where it turns,
    or to `FARTHEST`.

    Args:
        losses: of each candidate by its name.
    """
    found = []
    for which in BASELINES:
        levels = [level for level in SWEPT if Candidate(which, level).name in losses]
        if not levels:
            continue
        means = [np.mean(losses[Candidate(which, level).name]) for level in levels]
        best = int(np.argmin(means))
        if best == len(levels) - 1 and levels[-1] < FARTHEST:
            found.append(Candidate(which, 2 * levels[-1]))
        if best == 0 and levels[0] > 1 / FARTHEST:
            found.append(Candidate(which, levels[0] / 2))
    return tuple(found)


def target_alone(artefact: Artefact) -> Artefact | None:
    """An artefact that trains on the target's shares throughout; None where it can't.

    That is where no mixture was tuned, or the target weighs text that isn't trained on.
    """
    shares, mixture = artefact.provenance["target"], artefact.mixture
    if mixture is None or any(w and name not in mixture.domains for name, w in shares.items()):
        return None
    row = np.asarray([[shares.get(name, 0.0) for name in mixture.domains]], np.float64)
    return replace(artefact, mixture=Mixture((0.0,), "constant", mixture.domains, row))


def constant(artefact: Artefact) -> Artefact:
    """An artefact whose learning rates stay where they are highest once they are there."""
    rates = artefact.learning_rates
    kept = {name: np.maximum.accumulate(curve) for name, curve in rates.parameters.items()}
    return replace(artefact, learning_rates=replace(rates, parameters=kept))


def by_update(artefact: Artefact, times: float) -> Artefact:
    """An artefact whose curves are read by update, in a training so many times as long.

    Update t of it uses what update t of the tuned training uses, and after the last of these what
    that uses; by share of the training, which is how all others are read, update t uses what update
    `t / times` of the tuned one does. The factors of a rule stay.

    Args:
        artefact: carried to the training.
        times: its updates in those of the tuned one.
    """
    sections = {section.key: _squeezed(value, times) for section, value in held(artefact)}
    return replace(artefact, **sections)


def _squeezed(value: Any, times: float) -> Any:
    """A schedule, and those within it, with knots so much earlier."""
    if not is_dataclass(value) or isinstance(value, type):
        return value
    parts = {field.name: _squeezed(getattr(value, field.name), times) for field in fields(value)}
    if "knots" in parts:
        parts["knots"] = tuple(knot / times for knot in parts["knots"])
    return type(value)(**parts)


def leveled(artefact: Artefact, level: float) -> Artefact:
    """An artefact with all learning rates times a level; the very one at one."""
    if level == 1:
        return artefact
    rates = artefact.learning_rates
    own = {name: level * curve for name, curve in rates.parameters.items()}
    multipliers = rates.multipliers and replace(
        rates.multipliers,
        groups={
            label: tuple(level * value for value in values)
            for label, values in rates.multipliers.groups.items()
        },
    )
    return replace(artefact, learning_rates=replace(rates, parameters=own, multipliers=multipliers))
