"""The phases of a search: a recipe without any has one, made of what its `outer` says."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from metatune.recipe.schema import EstimatorSpec, OptimizerSpec, OuterSpec, Recipe, UnrollSpec

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
