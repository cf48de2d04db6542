"""Schedules of the base rate of an inner optimizer."""

from dataclasses import dataclass
from typing import Literal

from metatune.recipe.rules import FRACTION, ruled


@dataclass(frozen=True)
class ConstantSpec:
    """A base rate that stays, after a linear warmup.

    Attributes:
        warmup: how long the rate rises from zero, a fraction of inner steps.
    """

    kind: Literal["constant"] = "constant"
    warmup: float = ruled(0.0, FRACTION)


@dataclass(frozen=True)
class CosineSpec:
    """A linear warmup, then half a cosine down.

    Attributes:
        warmup: how long the rate rises from zero, a fraction of inner steps.
        final: where the cosine ends, a fraction of the peak rate.
    """

    kind: Literal["cosine"] = "cosine"
    warmup: float = ruled(0.05, FRACTION)
    final: float = ruled(0.1, FRACTION)


@dataclass(frozen=True)
class WarmupStableDecaySpec:
    """Warmup, plateau, then a linear decay.

    Attributes:
        warmup: how long the rate rises from zero, a fraction of inner steps.
        decay: how long it falls at the end, a fraction of inner steps.
        final: where it ends, a fraction of the peak rate.
    """

    kind: Literal["wsd"] = "wsd"
    warmup: float = ruled(0.05, FRACTION)
    decay: float = ruled(0.2, FRACTION)
    final: float = ruled(0.1, FRACTION)


ScheduleSpec = ConstantSpec | CosineSpec | WarmupStableDecaySpec
