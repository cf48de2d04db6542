"""Prodigy in the place of AdamW: it finds how large the rate must be by itself.

Source: Mishchenko & Defazio, Prodigy: An Expeditiously Adaptive Parameter-Free Learner, ICML 2024.
"""

from metatune.verdict.contestants.contestant import ContestSetting, Evaluate
from metatune.verdict.contestants.schedule_free import refusal_of_another
from metatune.verdict.contestants.sweep import sweep, with_mixtures
from metatune.verdict.points import Plain


class Prodigy:
    """`optax.contrib.prodigy`, by the recipe's schedule and at a constant rate."""

    name = "prodigy"
    summary = "Prodigy, by the recipe's schedule and at a constant rate x rates x mixtures"

    def refusal(self, setting: ContestSetting) -> str | None:
        """It is in AdamW's place."""
        return refusal_of_another(setting)

    def search(self, setting: ContestSetting, budget: int, evaluate: Evaluate, key: int) -> None:
        """See `Contestant`."""
        options = [
            point
            for plain in (
                Plain(optimizer="prodigy"),
                Plain(optimizer="prodigy", schedule="constant"),
            )
            for point in with_mixtures(setting, plain)
        ]
        sweep(options, budget, evaluate)
