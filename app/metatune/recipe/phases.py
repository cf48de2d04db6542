"""The phases of a search: a recipe without any has one, made of what its `outer` says."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from metatune.recipe.schema import (
    EstimatorSpec,
    FullSpec,
    InnerSpec,
    OptimizerSpec,
    OuterSpec,
    Recipe,
    TuneSpec,
    UnrollSpec,
)

CHOICES = ("estimator", "unroll", "optimizer")
"""What a phase may choose for itself."""


@dataclass(frozen=True)
class Phase:
    """A phase with nothing left out.

    Attributes:
        number: which, from 0.
        steps: outer steps at most.
        estimator: how the hypergradient is obtained.
        unroll: through which part of the training.
        optimizer: how it is followed.
        reset: whether the optimizer begins with a fresh state.
    """

    number: int
    steps: int
    estimator: EstimatorSpec
    unroll: UnrollSpec
    optimizer: OptimizerSpec
    reset: bool = False


def resolved(outer: OuterSpec) -> tuple[Phase, ...]:
    """The phases of a search, one at least.

    Args:
        outer: of a sound recipe, which has either steps or phases.
    """
    if outer.phases is None:
        if outer.steps is None:
            raise ValueError("a sound recipe has outer.steps or outer.phases")
        return (Phase(0, outer.steps, outer.estimator, outer.unroll, outer.optimizer),)
    return tuple(
        Phase(
            number,
            phase.steps,
            phase.estimator or outer.estimator,
            phase.unroll or outer.unroll,
            phase.optimizer or outer.optimizer,
            phase.reset,
        )
        for number, phase in enumerate(outer.phases)
    )


def horizons(unroll: UnrollSpec, inner: InnerSpec, tune: TuneSpec) -> tuple[int, ...] | None:
    """Inner steps of the trainings of a phase's outer steps, the last number staying.

    Args:
        unroll: of the phase.
        inner: of a sound recipe.
        tune: of it.

    Returns:
        None for `inner.steps`, or for an unroll that cuts trainings otherwise.
    """
    if not isinstance(unroll, FullSpec) or unroll.fractions is None:
        return unroll.horizons if isinstance(unroll, FullSpec) else None
    windows = [windows for _, windows in windows_of(tune)]

    def longer(steps: int) -> int:
        while steps < inner.steps and not all(
            reaches(steps, inner.steps, each) for each in windows if each <= inner.steps
        ):
            steps += 1
        return steps

    # A decimal fraction isn't exact: 0.07 of 100 steps are 7, not 8.
    return tuple(longer(math.ceil(round(part * inner.steps, 6))) for part in unroll.fractions)


def windows_of(tune: TuneSpec) -> Iterator[tuple[str, int]]:
    """Dotted path of each entry, and how many windows it has."""
    for _, entry, settings in tune.entries():
        yield entry, getattr(settings, "windows", 1)


def reaches(steps: int, whole: int, windows: int) -> bool:
    """Whether a training that schedules are stretched onto has a step in each of their windows.

    Args:
        steps: of it.
        whole: steps of the training that the schedules are of.
        windows: of a schedule.
    """
    # As `inner.horizons` stretches, and `tunables.windows` divides.
    return len({t * whole // steps * windows // whole for t in range(steps)}) == windows


def alone(recipe: Recipe, phase: Phase) -> Recipe:
    """The recipe that is a phase of another, and no more."""
    choices = {name: getattr(phase, name) for name in CHOICES}
    return replace(recipe, outer=replace(recipe.outer, steps=phase.steps, phases=None, **choices))


def said(outer: OuterSpec, choice: str) -> Iterator[tuple[str, Any]]:
    """Dotted path and value of a choice, for all phases and for each that has its own."""
    yield f"outer.{choice}", getattr(outer, choice)
    for number, phase in enumerate(outer.phases or ()):
        if (own := getattr(phase, choice)) is not None:
            yield f"outer.phases[{number}].{choice}", own
