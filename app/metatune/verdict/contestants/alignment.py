"""A mixture by gradient alignment, as FastMix does: one training finds it, others use it.

Source: Tan et al., FastMix: Fast Data Mixture Optimization via Gradient Descent, ICLR 2026; how the
training aligns, and what was read where, is said in `verdict.alignment`.
"""

from dataclasses import replace
from typing import Final

from metatune.verdict.contestants.contestant import (
    PROXY,
    ContestSetting,
    Evaluate,
    fitting,
)
from metatune.verdict.contestants.sweep import sweep
from metatune.verdict.points import Plain

REACHES: Final = (4.0, 2.0, 8.0)
"""How far the logits of a mixture may go: one proxy each."""


class Alignment:
    """Mixtures that proxies end with, at all rates."""

    name = "alignment"
    summary = "mixtures by gradient alignment in one proxy each, as FastMix does x rates"

    def refusal(self, setting: ContestSetting) -> str | None:
        """It needs a mixture, and gradients that can be aligned."""
        return setting.unaligned if setting.mixtures else "no mixture is tuned"

    def search(self, setting: ContestSetting, budget: int, evaluate: Evaluate, key: int) -> None:
        """See `Contestant`."""
        left, losses = float(budget), dict[Plain, float]()
        for reach in REACHES:
            if left < PROXY + 1:
                break
            left -= PROXY + 1
            if shares := evaluate.aligned(reach):
                point = replace(Plain(mixture="aligned"), shares=fitting(shares, setting.caps))
                losses[point] = evaluate(point)
        options = [*losses] or [Plain()]
        sweep(options, len(losses) + int(left), evaluate, losses)
