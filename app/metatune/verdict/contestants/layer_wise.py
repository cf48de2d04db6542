"""Layer-wise decay of rates: the deeper a layer lies below the output, the slower it learns.

Source: Howard & Ruder, Universal Language Model Fine-tuning for Text Classification, 2018, section
3.2 (discriminative fine-tuning), as one factor a layer.
"""

from typing import Final

from metatune.verdict.contestants.contestant import ContestSetting, Evaluate
from metatune.verdict.contestants.sweep import sweep, with_mixtures
from metatune.verdict.points import Plain

FACTORS: Final = (0.9, 0.75, 0.5)


class LayerWise:
    """One factor from each layer to the one below it."""

    name = "layer-wise"
    summary = "rates that fall by a factor (0.9, 0.75, 0.5) a layer downwards x rates x mixtures"

    def refusal(self, setting: ContestSetting) -> str | None:
        """It needs layers."""
        return None if setting.layers > 1 else "the model has a single layer"

    def search(self, setting: ContestSetting, budget: int, evaluate: Evaluate, key: int) -> None:
        """See `Contestant`."""
        options = [
            point
            for factor in FACTORS
            for point in with_mixtures(setting, Plain(layer_decay=factor))
        ]
        sweep(options, budget, evaluate)
