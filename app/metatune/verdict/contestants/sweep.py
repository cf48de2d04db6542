"""A sweep: some options at all rates, from the recipe's own rate outwards."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from metatune.verdict.contestants.contestant import ContestSetting, Evaluate
from metatune.verdict.points import Plain

RATES: Final = (1.0, 2.0, 0.5, 4.0, 0.25, 8.0, 0.125, 16.0, 0.0625)
"""Times the recipe's, in the order in which they are tried."""

AROUND: Final = (2**0.5, 0.5**0.5)
"""Times the best rate, for what is left of the budget."""


def with_mixtures(setting: ContestSetting, option: Plain) -> Iterator[Plain]:
    """An option with each mixture that anyone would try."""
    if not setting.mixtures:
        yield option
    for name, shares in setting.mixtures.items():
        yield replace(option, mixture=name, shares=shares)


def sweep(
    options: Sequence[Plain],
    budget: int,
    evaluate: Evaluate,
    known: Mapping[Plain, float] | None = None,
) -> None:
    """All options at each rate, as far as the budget goes; then finer around the best.

    Args:
        options: rate one.
        budget: whole trainings, those that are known among them.
        evaluate: trains and measures.
        known: losses of points that were evaluated before; None for none.
    """
    losses = dict(known or {})
    for rate in RATES:
        for option in options:
            if len(losses) == budget:
                return
            point = replace(option, rate=rate)
            if point not in losses:
                losses[point] = evaluate(point)
    for best in sorted(losses, key=lambda point: losses[point]):
        for times in AROUND:
            point = replace(best, rate=best.rate * times)
            if len(losses) == budget:
                return
            if point not in losses:
                losses[point] = evaluate(point)
