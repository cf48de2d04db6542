"""Rules on what is measured on held-out text."""

from collections.abc import Iterable

from metatune.recipe.faults import Fault
from metatune.recipe.phases import resolved
from metatune.recipe.schema import (
    AutoSpec,
    DataSpec,
    InnerSpec,
    ObjectiveSpec,
    OuterSpec,
    PersistentESSpec,
    ZerothOrderSpec,
)


def what_has_no_derivative_is_followed_by_its_values(outer: OuterSpec) -> Iterable[Fault]:
    """A share of what is right moves in steps."""
    measure = outer.objective.measure
    if measure == "loss" or (outer.steps is None and not outer.phases):
        return
    for phase in resolved(outer):
        if not isinstance(phase.estimator, ZerothOrderSpec | PersistentESSpec | AutoSpec):
            problem = f"has no derivative, which the estimator {phase.estimator.kind} goes by"
            cure = "write outer.estimator: {kind: zeroth_order}, or measure the loss"
            yield Fault("outer.objective.measure", measure, problem, cure)
            return


def worst_case_has_cases(outer: OuterSpec, data: DataSpec) -> Iterable[Fault]:
    """A maximum is over two domains or more, and of losses."""
    path, temperature = "outer.objective.worst_case", outer.objective.worst_case
    if temperature is None:
        return
    if sum(weight > 0 for weight in data.target.values()) < 2:
        problem = "needs two domains or more with a weight in data.target"
        yield Fault(path, temperature, problem, "weigh another domain, or leave it out")
    if (measure := outer.objective.measure) != "loss":
        problem = f"is of losses, but outer.objective.measure is {measure}"
        yield Fault(path, temperature, problem, "leave one of them out")


def points_are_steps(outer_objective: ObjectiveSpec, inner: InnerSpec) -> Iterable[Fault]:
    """A training has a step for each point of its trajectory."""
    along = outer_objective.trajectory
    if along is not None and along.points > inner.steps:
        problem, cure = f"must be at most inner.steps, {inner.steps}", "lower it"
        yield Fault("outer.objective.trajectory.points", along.points, problem, cure)
