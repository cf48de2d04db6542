"""The verdict of a check, and the causes that a red one names.

What lies within its own noise makes no check red. Where noise hides what a check asks for, it is
*not resolved*: amber, so that nothing is certified, and said to be so.
"""

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
ROUGH: Final = (
    "the training is rough: slopes of whole trainings are others than the derivative that two "
    "exact estimators agree about, so that they change over less than rounding lets be seen. "
    "Lengthen the warmup of inner.optimizer.schedule, or lower inner.optimizer.learning_rate"
)
UNSETTLED: Final = (
    "not resolved: central differences don't settle at any step that float32 can tell from its "
    "rounding, so that they don't tell a right derivative from a wrong one"
)
WRINKLED: Final = (
    "the derivative is that of a wrinkle of the objective: it holds over much less than a step of "
    "the search. Lengthen the warmup of inner.optimizer.schedule, raise inner.optimizer.eps or "
    "eps_root, or lower outer.optimizer.learning_rate"
)
STRIDE: Final = (
    "not resolved by a shortened check: the derivative holds over much less than a step of the "
    "search, as it may where a warmup is left hardly a step; check without --steps"
)
LONGER: Final = (
    "not resolved by a shortened check: roughness grows with the steps, and may be too much at the "
    "recipe's own horizon; check without --steps"
)
SHORTENED: Final = (
    "not resolved by a shortened check: signs of the hypergradient still change at so few steps; "
    "check without --steps"
)
SAMPLING: Final = (
    "the estimator's own sampling error hides what is compared: raise outer.estimator.directions, "
    "or take an exact estimator"
)
CHAOS: Final = (
    "the hypergradient of early windows is dominated by growth: it is the derivative of one "
    "chaotic trajectory. fit follows differences of whole trainings there (outer.signal); a lower "
    "inner.optimizer.learning_rate, a longer warmup, inner.optimizer.eps_root or fewer inner.steps "
    "make the training smoother"
)
DAMPED: Final = (
    "not resolved: the cap of outer.estimator.damping is in force, so that what it gives is not "
    "the derivative that an exact estimator has. What differences say of it stands beside"
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
        hidden: whether noise left nothing to judge.
    """

    level: Level
    causes: tuple[str, ...] = ()
    hidden: bool = False


GREEN: Final = Finding("green")


def unresolved(*causes: str) -> Finding:
    """What noise hides: amber."""
    return Finding("amber", causes, hidden=True)


def worst(findings: Iterable[Finding]) -> Finding:
    """The worst of some findings, the first of equals; green of none."""
    return max(findings, key=lambda finding: LEVELS.index(finding.level), default=GREEN)


def graded(value: float, amber: float, red: float, *causes: str) -> Finding:
    """Green up to `amber`, amber up to `red`, red above it and where `value` is no number."""
    if value <= amber:
        return GREEN
    return Finding("amber" if value <= red else "red", causes)
