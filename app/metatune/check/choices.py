"""Choices: how many that routers make are others after a step of the search.

A derivative of a model with experts is that at the choices made (`metatune.models.experts`): what a
choice that flips changes is not in it. So two trainings of the same start and data are compared,
one at η and one a step down the hypergradient g,

    η - h √N g / |g|,

as long as a step of h in each of N meta-parameters. Of the choices that the trained routers make
at η, of every token of the held-out batches, in every layer with experts, as many a token as it
passes through, those are counted that aren't made there. It tells how often, not how much is lost
by it: whether the derivative still holds is for the differences and the linearity, whose trainings
flip too. So there is no threshold, and the level is green.
"""

from dataclasses import dataclass

from metatune.check.levels import GREEN, Finding
from metatune.check.numbers import Numbers


@dataclass(frozen=True)
class Choices:
    """How often a choice flips.

    Attributes:
        step: h, for each coordinate of η.
        flipped: share of the choices.
        choices: how many there are.
        finding: green.
    """

    step: float
    flipped: float
    choices: int
    finding: Finding = GREEN


def judge_choices(numbers: Numbers) -> Choices | None:
    """What was counted; None of a model without experts, or where numbers aren't finite."""
    if numbers.flipped is None:
        return None
    return Choices(numbers.settings.step, numbers.flipped.share, numbers.flipped.choices)
