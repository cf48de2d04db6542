"""Schedule-free AdamW in the place of AdamW: a rate without a schedule, and an average.

Source: Defazio et al., The Road Less Scheduled, NeurIPS 2024.
"""

from typing import Final

from metatune.verdict.contestants.contestant import ContestSetting, Evaluate
from metatune.verdict.contestants.sweep import sweep, with_mixtures
from metatune.verdict.points import Plain

MIXED: Final = "the recipe's update is corrected or averaged, or its start is tuned"


class ScheduleFree:
    """At a constant rate after the recipe's warmup."""

    name = "schedule-free"
    summary = "schedule-free AdamW at a constant rate x rates x mixtures"

    def refusal(self, setting: ContestSetting) -> str | None:
        """It is AdamW's."""
        return refusal_of_another(setting)

    def search(self, setting: ContestSetting, budget: int, evaluate: Evaluate, key: int) -> None:
        """See `Contestant`."""
        plain = Plain(schedule="constant", optimizer="schedule_free")
        sweep([*with_mixtures(setting, plain)], budget, evaluate)


def refusal_of_another(setting: ContestSetting) -> str | None:
    """Why another optimizer can't be put in the place of the recipe's; None where it can."""
    if setting.optimizer != "adamw":
        return f"it takes AdamW's place, the recipe trains by {setting.optimizer}"
    return None if setting.plain else MIXED
