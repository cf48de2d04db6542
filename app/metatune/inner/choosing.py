"""What it costs to measure which hypergradient has signal, and where there is anything to choose.

In gradients of an inner step, those of a training and of what is differentiated alike.
"""

import math
from collections.abc import Mapping
from typing import Final

from metatune.inner.estimators import gradients
from metatune.recipe.phases import Phase
from metatune.recipe.schema import DampingSpec, FullSpec, MixFlowSpec, OuterSpec, SignalSpec

WAYS: Final[Mapping[str, DampingSpec | None]] = {
    "exact": None,
    "damped": DampingSpec(max_growth=1.0),
    "restarted": DampingSpec(max_growth=10.0, every="segment", restart=True),
}
"""By name what is done to the adjoint, the least biased first."""

FEWEST: Final = 3
"""Trainings that ways are judged by, at least: of two a variance has one degree of freedom."""

SHARE: Final = 0.5
"""Of what may be spent beside the plain hypergradients, what a measurement may take: where it finds
none with signal, the rest is for differences."""


def hypergradients(trainings: int) -> int:
    """That a measurement takes beside that of the outer step itself, which is exact."""
    return len(WAYS) * trainings - 1


def affordable(spec: SignalSpec, outer_steps: int, per_step: float) -> tuple[int, int] | None:
    """What a measurement may be of: trainings, and windows by differences.

    Args:
        spec: what the recipe says.
        outer_steps: that are left of the horizon, this one included.
        per_step: gradients that a differentiated inner step takes.

    Returns:
        As many trainings as may be; None where `FEWEST` and one window are too many.
    """
    total = SHARE * (spec.cost - 1) * outer_steps * per_step
    for trainings in range(spec.members, FEWEST - 1, -1):
        windows = int((total - hypergradients(trainings) * per_step) // (2 * trainings))
        if windows >= 1:
            return trainings, windows
    return None


def needed(spec: SignalSpec, per_step: float) -> int | None:
    """Outer steps that must be left for a measurement; None where no number is enough."""
    if spec.cost <= 1 or spec.members < FEWEST:
        return None
    least = hypergradients(FEWEST) * per_step + 2 * FEWEST
    return math.ceil(least / (SHARE * (spec.cost - 1) * per_step))


def why_not(outer: OuterSpec, phase: Phase, spec: SignalSpec, outer_steps: int) -> str:
    """Why nothing is measured in a phase, in words; empty where something may be.

    Args:
        outer: of the recipe.
        phase: of the search.
        spec: what the recipe says.
        outer_steps: that are left of the horizon.
    """
    estimator = phase.estimator
    for field in ("population", "robust"):
        if getattr(outer, field) is not None:
            return f"outer.{field} says what each hypergradient is the mean of"
    if not isinstance(estimator, MixFlowSpec):
        return f"the estimator {estimator.kind} has no damping"
    if estimator.damping is not None:
        return "outer.estimator.damping is the recipe's own"
    if not isinstance(phase.unroll, FullSpec):
        return "a part of each training is differentiated (outer.unroll)"
    if not (outer.fresh.initialisation or outer.fresh.data):
        return "by outer.fresh no training differs from another"
    at_least = needed(spec, gradients(estimator))
    if at_least is None:
        return "outer.signal has too few members for it, or no cost"
    if affordable(spec, outer_steps, gradients(estimator)) is None:
        there = "1 outer step is" if outer_steps == 1 else f"{outer_steps} outer steps are"
        return (
            f"{there} left of this horizon, and measuring is paid by "
            f"{at_least} or more (outer.signal.cost: {spec.cost:g})"
        )
    return ""
