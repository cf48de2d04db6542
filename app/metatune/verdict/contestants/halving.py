"""Successive halving: many short trainings, of which the better ones are trained for longer.

Source: Jamieson & Talwalkar, Non-stochastic Best Arm Identification and Hyperparameter
Optimization, AISTATS 2016; synchronous, with thirds.
"""

from functools import partial
from typing import Final

import numpy as np

from metatune.verdict.contestants import study
from metatune.verdict.contestants.contestant import ContestSetting, Evaluate
from metatune.verdict.points import Plain

KEPT: Final = 3
"""One of so many is trained for so many times as long."""

RUNGS: Final = (1 / 9, 1 / 3, 1.0)
"""Shares of the inner steps; each rung takes a third of the budget."""

SHORTEST: Final = 9
"""Inner steps of a whole training, below which the first rung would have none."""


class Halving:
    """At random in the few numbers, on three rungs; schedules are squeezed into short trainings."""

    name = "halving"
    summary = "random search in peak, warmup, decay and target share, by successive halving"

    def refusal(self, setting: ContestSetting) -> str | None:
        """It needs trainings that can be shortened."""
        if setting.steps < SHORTEST:
            return f"trainings of {setting.steps} inner steps can't be shortened"
        return None

    def search(self, setting: ContestSetting, budget: int, evaluate: Evaluate, key: int) -> None:
        """See `Contestant`."""
        rungs = RUNGS[-min(budget, len(RUNGS)) :]
        survivors = budget // len(rungs)
        ranges, point = study.few(setting), partial(study.of_few, setting)
        points: list[Plain] = [point({name: study.FEW_FIRST[name] for name in ranges})]
        for number in range(1, survivors * KEPT ** (len(rungs) - 1)):
            points.append(point(_drawn(ranges, np.random.default_rng((key, number)))))
        for number, share in enumerate(rungs):
            losses = {each: evaluate(each, share=share) for each in points}
            left = survivors * KEPT ** (len(rungs) - 2 - number) if share < 1 else 0
            points = sorted(points, key=lambda each: losses[each])[:left]


def _drawn(
    ranges: dict[str, tuple[float, float, bool]], drawing: np.random.Generator
) -> dict[str, float]:
    found = {}
    for name, (low, high, log) in ranges.items():
        along = drawing.uniform()
        found[name] = low * (high / low) ** along if log else low + (high - low) * along
    return found
