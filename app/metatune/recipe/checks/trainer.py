"""Rules on a trainer that is a command."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import get_args

from metatune.recipe.faults import Fault
from metatune.recipe.phases import said
from metatune.recipe.schema import External, Full, Outer, PerElement, Tune


def an_external_trainer_measures_by_itself(outer: Outer) -> Iterable[Fault]:
    """What a command does is its own affair: what is said of it would have no effect."""
    if not any(isinstance(spec, External) for _, spec in said(outer, "estimator")):
        return
    for path, unroll in said(outer, "unroll"):
        if unroll != Full():
            problem = "an external trainer does whole trainings, which aren't cut"
            yield Fault(f"{path}.kind", unroll.kind, problem, "leave outer.unroll out")
    if outer.fresh.initialisation != outer.fresh.data:
        problem = "an external trainer has one seed, for initialisation and data"
        yield Fault("outer.fresh", asdict(outer.fresh), problem, "make both true or both false")
    default = Outer()
    for section, option in (
        ("objective", "sequences"),
        ("objective", "micro_batch"),
        ("objective", "average"),
        ("objective", "worst_case"),
        ("objective", "trajectory"),
        ("judge", "sequences"),
        ("report", "sequences"),
    ):
        value = getattr(getattr(outer, section), option)
        if value != getattr(getattr(default, section), option):
            problem = "has no effect on an external trainer, which measures by itself"
            yield Fault(f"outer.{section}.{option}", value, problem, "leave it out")


def an_external_trainer_takes_rates_of_whole_parameters(
    outer: Outer, tune: Tune
) -> Iterable[Fault]:
    """What a command is told is a tuned.json alone."""
    external = any(isinstance(spec, External) for _, spec in said(outer, "estimator"))
    if external and tune.learning_rates and tune.learning_rates.per in get_args(PerElement):
        problem = "an external trainer is told one rate for each parameter"
        cure = "take tensor, or another kind of estimator"
        yield Fault("tune.learning_rates.per", tune.learning_rates.per, problem, cure)
    if external and tune.rater:
        problem = "an external trainer is told schedules, no network"
        cure = "take it out, or another kind of estimator"
        yield Fault("tune.rater", asdict(tune.rater), problem, cure)
