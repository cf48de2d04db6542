"""What is trained at every rung: the default and the tuned schedules, at several levels."""

from dataclasses import replace
from typing import Final, Literal, NamedTuple

from metatune.artefact import Artefact

LEVELS: Final = (1.0, 0.5, 2.0)
"""Of all rates of a candidate: whether the optimum stays at one."""

LOW: Final = 0.1
"""Of all rates, to see whether a mixture's rank flips with them.

Source: arXiv 2512.24503, 2025, as cited in the docs: rankings of data flip with the rate.
"""

Schedules = Literal["default", "tuned"]


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


def candidates(tuned: Artefact) -> tuple[Candidate, ...]:
    """All that are trained; of a tuned mixture at low rates, too. The two of the gain first."""
    levels = (*LEVELS, LOW) if tuned.mixture is not None else LEVELS
    which: tuple[Schedules, ...] = ("default", "tuned")
    return tuple(Candidate(schedules, level) for level in levels for schedules in which)


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
