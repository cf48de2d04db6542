"""The grid that anyone tries first: schedules by rates by mixtures."""

from typing import Final

from metatune.verdict.contestants.contestant import ContestSetting, Evaluate
from metatune.verdict.contestants.sweep import sweep, with_mixtures
from metatune.verdict.points import Plain

SCHEDULES: Final = ("cosine", "constant", "wsd")


class GridSweep:
    """Cosine, constant and warmup-stable-decay, at rates from the recipe's own outwards."""

    name = "grid"
    summary = "schedules (cosine, constant, wsd) x rates x mixtures (the recipe's, by size, target)"

    def refusal(self, setting: ContestSetting) -> str | None:
        """It always applies."""
        return None

    def search(self, setting: ContestSetting, budget: int, evaluate: Evaluate, key: int) -> None:
        """See `Contestant`."""
        options = [
            point
            for schedule in SCHEDULES
            for point in with_mixtures(setting, Plain(schedule=schedule))
        ]
        sweep(options, budget, evaluate)
