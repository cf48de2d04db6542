"""Hypergradient descent: the rate is updated during the one training that there is.

Source: Baydin et al., Online Learning Rate Adaptation with Hypergradient Descent, ICLR 2018.
"""

from typing import Final

from metatune.verdict.contestants.contestant import ContestSetting, Evaluate
from metatune.verdict.contestants.schedule_free import MIXED
from metatune.verdict.contestants.sweep import sweep, with_mixtures
from metatune.verdict.points import Plain

STEPS: Final = (0.02, 0.1)
"""Of the logarithm of the rate, for a gradient that points where the last update went."""


class Online:
    """From the rate that it is given, multiplicatively."""

    name = "online"
    summary = "hypergradient descent on the rate during the training x its step x rates x mixtures"

    def refusal(self, setting: ContestSetting) -> str | None:
        """It needs the optimizer's own update."""
        if setting.optimizer == "schedule_free_adamw":
            return "of a schedule-free optimizer no update goes where a gradient points"
        return None if setting.plain else MIXED

    def search(self, setting: ContestSetting, budget: int, evaluate: Evaluate, key: int) -> None:
        """See `Contestant`."""
        options = [
            point
            for step in STEPS
            for point in with_mixtures(setting, Plain(optimizer="online", online_rate=step))
        ]
        sweep(options, budget, evaluate)
