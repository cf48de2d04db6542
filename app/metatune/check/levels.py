"""The verdict of a check, and the causes that a red one names."""

from collections.abc import Iterable
from typing import Final, Literal, NamedTuple

Level = Literal["green", "amber", "red"]
LEVELS: Final[tuple[Level, ...]] = ("green", "amber", "red")

LEARNING_RATE: Final = (
    "the learning rate is too high for the horizon: the training jumps where it should move. Lower "
    "inner.optimizer.learning_rate, lengthen its warmup, set inner.optimizer.clip_norm, or shorten "
    "inner.steps"
)
EPS_ROOT: Final = (
    "the derivative of Adam blows up where gradients are nearly zero: raise "
    "inner.optimizer.eps_root (to 1e-10, say)"
)
ESTIMATOR: Final = (
    "the estimator's result is not the derivative of this training: take out what approximates "
    "(outer.estimator.gradient_dtype, clip_tangents, a large step), or compare with "
    "outer.estimator.kind=reverse"
)
SAMPLING: Final = (
    "the estimator's own sampling error hides what is compared: raise outer.estimator.directions, "
    "or take an exact estimator"
)
ROUNDING: Final = (
    "rounding hides the derivative: the objective hardly depends on what is tuned, or float32 is "
    "too coarse for it"
)
NOISE: Final = (
    "too few seeds or sequences: seeds disagree about the hypergradient. Raise "
    "outer.objective.sequences or data.batch_size, tune fewer windows or groups, or check with "
    "more --seeds; a tunable that is at its optimum looks like this, too"
)
HORIZON: Final = (
    "the horizon is too short: the signs of the hypergradient still change with it. Raise "
    "inner.steps, or the window of outer.unroll"
)


class Finding(NamedTuple):
    """What a check comes to.

    Attributes:
        level: green, amber or red.
        causes: the likely ones, of an amber or red level.
    """

    level: Level
    causes: tuple[str, ...] = ()


GREEN: Final = Finding("green")


def worst(findings: Iterable[Finding]) -> Finding:
    """The worst of some findings, the first of equals; green of none."""
    return max(findings, key=lambda finding: LEVELS.index(finding.level), default=GREEN)


def graded(value: float, amber: float, red: float, *causes: str) -> Finding:
    """Green up to `amber`, amber up to `red`, red above it and where `value` is no number."""
    if value <= amber:
        return GREEN
    return Finding("amber" if value <= red else "red", causes)
