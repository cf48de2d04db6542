"""Rules on what is measured on held-out text."""

from collections.abc import Iterable

from metatune.recipe.faults import Fault
from metatune.recipe.phases import resolved, said
from metatune.recipe.schema import Data, External, Inner, Objective, Outer


def one_way_to_measure(outer: Outer) -> Iterable[Fault]:
    """All phases minimise the same: what judges them and reports the result."""
    if not outer.phases:
        return
    measures = [
        phase.estimator.command
        if isinstance(phase.estimator, External)
        else getattr(phase.estimator, "objective", "loss")
        for phase in resolved(outer)
    ]
    for number, measure in enumerate(measures):
        if measure != measures[0]:
            problem = f"minimises {measure!r}, but the first phase {measures[0]!r}"
            cure = "give all phases the same objective, or the same command"
            yield Fault(f"outer.phases[{number}].estimator", measure, problem, cure)


def worst_case_has_cases(outer: Outer, data: Data) -> Iterable[Fault]:
    """A maximum is over two domains or more, and of losses."""
    path, temperature = "outer.objective.worst_case", outer.objective.worst_case
    if temperature is None:
        return
    if sum(weight > 0 for weight in data.target.values()) < 2:
        problem = "needs two domains or more with a weight in data.target"
        yield Fault(path, temperature, problem, "weigh another domain, or leave it out")
    for where, spec in said(outer, "estimator"):
        measure = getattr(spec, "objective", "loss")
        if measure != "loss":
            problem = f"is of losses, but {where}.objective is {measure}"
            yield Fault(path, temperature, problem, "leave one of them out")


def points_are_steps(outer_objective: Objective, inner: Inner) -> Iterable[Fault]:
    """A training has a step for each point of its trajectory."""
    along = outer_objective.trajectory
    if along is not None and along.points > inner.steps:
        problem, cure = f"must be at most inner.steps, {inner.steps}", "lower it"
        yield Fault("outer.objective.trajectory.points", along.points, problem, cure)
