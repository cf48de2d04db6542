"""Rules on a population of inner trainings."""

from collections.abc import Iterable
from dataclasses import asdict

from metatune.recipe.faults import Fault
from metatune.recipe.phases import resolved
from metatune.recipe.schema import (
    AutoSpec,
    InnerSpec,
    LearningRatesSpec,
    MixFlowSpec,
    OnlineSpec,
    OuterSpec,
    PersistentESSpec,
    PopulationSpec,
    ReverseSpec,
)


def members_at_once_are_taken_backward(
    outer_population: PopulationSpec, outer: OuterSpec
) -> Iterable[Fault]:
    """In one program the meta-parameters of all members are M times as many directions."""
    if not outer_population.vmap or not _has_steps(outer):
        return
    for phase in resolved(outer):
        spec = phase.estimator
        if isinstance(spec, PersistentESSpec):
            continue  # refused by itself
        backward = isinstance(spec, MixFlowSpec | ReverseSpec)
        if isinstance(spec, AutoSpec):
            backward = outer.objective.measure == "loss"
        if not backward:
            problem = (
                f"{spec.kind} goes along directions, each of which would pass through all members"
            )
            cure = "write false: members are then taken one after the other"
            yield Fault("outer.population.vmap", True, problem, cure)
            return


def pairs_that_live_on_are_no_members(
    outer_population: PopulationSpec, outer: OuterSpec
) -> Iterable[Fault]:
    """Pairs of trainings are several trainings as they are."""
    if not _has_steps(outer):
        return
    if any(isinstance(phase.estimator, PersistentESSpec) for phase in resolved(outer)):
        problem = "the estimator persistent_es has trainings of its own that live on, in pairs"
        cure = "leave it out, and take more pairs instead, or another estimator"
        yield Fault("outer.population", asdict(outer_population), problem, cure)


def members_of_other_ages_end_together(
    outer_population: PopulationSpec, outer: OuterSpec, inner: InnerSpec
) -> Iterable[Fault]:
    """An outer step has as many inner steps for each member, whatever its age."""
    if not outer_population.stagger or not _has_steps(outer):
        return
    for phase in resolved(outer):
        unroll = phase.unroll
        if not isinstance(unroll, OnlineSpec):
            continue
        lifetime = unroll.lifetime or inner.steps
        # A window that is none, or is longer than its lifetime, is a known fault.
        if 1 <= unroll.window <= lifetime and lifetime % unroll.window:
            problem = (
                f"members of other ages need lifetimes of whole windows, but the window, "
                f"{unroll.window}, doesn't divide the lifetime, {lifetime}"
            )
            cure = "change one of them, or write false: all members are then of one age"
            yield Fault("outer.population.stagger", True, problem, cure)
            return


def what_is_shared_has_no_gate(
    outer_population: PopulationSpec, tune_learning_rates: LearningRatesSpec
) -> Iterable[Fault]:
    """Rates that share a value move together, by the noise of their sum."""
    if outer_population.gate is not None and tune_learning_rates.sharing:
        problem = "would part rates that tune.learning_rates.sharing keeps together"
        cure = "leave one of them out"
        yield Fault("outer.population.gate", outer_population.gate, problem, cure)


def _has_steps(outer: OuterSpec) -> bool:
    """Whether there are phases to look at; if not, that is a fault of its own."""
    return outer.steps is not None or bool(outer.phases)
