"""Rules on a trainer elsewhere: what it takes, what it can't do, what has no effect on it."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any, get_args

from metatune.recipe.faults import Fault
from metatune.recipe.phases import said
from metatune.recipe.schema import (
    FullSpec,
    InitialisationSpec,
    LearnedUpdateSpec,
    LearningRatesSpec,
    OuterSpec,
    PerElement,
    PopulationSpec,
    RaterSpec,
    TrainerSpec,
    ZerothOrderSpec,
)


def an_external_trainer_is_followed_by_its_losses(
    trainer: TrainerSpec, outer: OuterSpec
) -> Iterable[Fault]:
    """Nothing of it is differentiated here."""
    own = ZerothOrderSpec()
    for path, spec in said(outer, "estimator"):
        if not isinstance(spec, ZerothOrderSpec):
            if path == "outer.estimator" and _unused(outer):
                continue
            problem = "the loss of a trainer elsewhere has no derivative here"
            cure = "write {kind: zeroth_order, step: 0.1}, or take trainer out"
            yield Fault(f"{path}.kind", spec.kind, problem, cure)
            continue
        for option in ("segment", "chunk"):
            value = getattr(spec, option)
            if value != getattr(own, option):
                yield _without_effect(f"{path}.{option}", value)


def _unused(outer: OuterSpec) -> bool:
    """Whether every phase has an estimator of its own."""
    return bool(outer.phases) and all(phase.estimator for phase in outer.phases or ())


def an_external_trainer_measures_by_itself(
    trainer: TrainerSpec, outer: OuterSpec
) -> Iterable[Fault]:
    """What a command does is its own affair: what is said of it would have no effect."""
    for path, unroll in said(outer, "unroll"):
        if unroll != FullSpec():
            problem = "an external trainer does whole trainings, which aren't cut"
            yield Fault(f"{path}.kind", unroll.kind, problem, "leave outer.unroll out")
    if outer.fresh.initialisation != outer.fresh.data:
        problem = "an external trainer has one seed, for initialisation and data"
        yield Fault("outer.fresh", asdict(outer.fresh), problem, "make both true or both false")
    yield from _measured_there(outer)


def _measured_there(outer: OuterSpec) -> Iterator[Fault]:
    default = OuterSpec()
    for section, option in (
        ("objective", "measure"),
        ("objective", "sequences"),
        ("objective", "micro_batch"),
        ("objective", "average"),
        ("objective", "worst_case"),
        ("objective", "trajectory"),
        ("validation", "sequences"),
        ("test", "sequences"),
    ):
        value = getattr(getattr(outer, section), option)
        if value != getattr(getattr(default, section), option):
            yield _without_effect(f"outer.{section}.{option}", value)


def _without_effect(path: str, value: Any) -> Fault:
    problem = "has no effect on an external trainer, which trains and measures by itself"
    return Fault(path, value, problem, "leave it out")


def an_external_trainer_takes_rates_of_whole_parameters(
    trainer: TrainerSpec, tune_learning_rates: LearningRatesSpec
) -> Iterable[Fault]:
    """What a command is told is a tuned.json alone."""
    if tune_learning_rates.per in get_args(PerElement):
        problem = "an external trainer is told one rate for each parameter"
        cure = "take tensor, or train here"
        yield Fault("tune.learning_rates.per", tune_learning_rates.per, problem, cure)


def an_external_trainer_is_told_no_rater(
    trainer: TrainerSpec, tune_rater: RaterSpec
) -> Iterable[Fault]:
    """Nor any other network."""
    problem = "an external trainer is told schedules, no network"
    yield Fault("tune.rater", asdict(tune_rater), problem, "take it out, or train here")


def an_external_trainer_steps_by_itself(
    trainer: TrainerSpec, tune_learned_update: LearnedUpdateSpec
) -> Iterable[Fault]:
    """A learned update is networks."""
    problem = "an external trainer is told schedules alone, no networks"
    cure = "take it out, or train here"
    yield Fault("tune.learned_update", asdict(tune_learned_update), problem, cure)


def an_external_trainer_starts_by_itself(
    trainer: TrainerSpec, tune_initialisation: InitialisationSpec
) -> Iterable[Fault]:
    """A start that is tuned is weights."""
    problem = "an external trainer isn't given weights to start from"
    cure = "take it out, or train here"
    yield Fault("tune.initialisation.kind", tune_initialisation.kind, problem, cure)


def an_external_trainer_does_one_training_at_a_time(
    trainer: TrainerSpec, outer_population: PopulationSpec
) -> Iterable[Fault]:
    """What a command trains has no states that could be kept side by side."""
    problem = "an external trainer does one training at a time, of the seed that it is told"
    cure = "leave it out, and take more directions instead, or train here"
    yield Fault("outer.population", asdict(outer_population), problem, cure)
