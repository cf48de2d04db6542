"""Rules between the fields of a recipe's search; the table of all rules is in `checks.py`."""

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, fields
from typing import get_args

from metatune.recipe.faults import Fault, unknown
from metatune.recipe.phases import CHOICES, resolved, said
from metatune.recipe.schema import (
    Data,
    External,
    Full,
    Inner,
    LossTerms,
    Online,
    OptimizerFields,
    Outer,
    PerElement,
    Sign,
    Tune,
)


def steps_or_phases(outer: Outer) -> Iterable[Fault]:
    """A search has a number of steps, or phases that have."""
    if outer.steps is None and outer.phases is None:
        cure = "write one of them, e.g. steps: 20"
        yield Fault("outer", {}, "must have exactly one of steps and phases", cure)
    if outer.steps is not None and outer.phases is not None:
        problem = "outer.phases is given too, each with steps of its own"
        yield Fault("outer.steps", outer.steps, problem, "take out outer.steps or outer.phases")
    if outer.phases is not None and not outer.phases:
        yield Fault("outer.phases", [], "names no phase", "write one or more, or outer.steps")


def choices_for_all_are_used(outer: Outer) -> Iterable[Fault]:
    """What is chosen for all phases is the choice of one at least."""
    for field in fields(Outer):
        if field.name not in CHOICES or not outer.phases:
            continue
        value = getattr(outer, field.name)
        default = field.default_factory() if field.default_factory is not MISSING else MISSING
        if value != default and all(getattr(phase, field.name) for phase in outer.phases):
            problem = f"every phase has {field.name} of its own"
            cure = f"take this one out, or {field.name} out of a phase that is to have it"
            yield Fault(f"outer.{field.name}", {"kind": value.kind}, problem, cure)


def unroll_fits_the_training(outer: Outer, inner: Inner) -> Iterable[Fault]:
    """Windows, lifetimes, horizons are no longer than the training, a window than its life."""
    for path, unroll in said(outer, "unroll"):
        if isinstance(unroll, Full):
            yield from _horizons(f"{path}.horizons", unroll.horizons, inner)
            continue
        limits = {"window": ("inner.steps", inner.steps)}
        if isinstance(unroll, Online) and unroll.lifetime is not None:
            limits["lifetime"] = limits["window"]
            if unroll.lifetime <= inner.steps:
                limits["window"] = (f"{path}.lifetime", unroll.lifetime)
        for name, (limit, most) in limits.items():
            if getattr(unroll, name) > most:
                problem, cure = f"must be at most {limit}, {most}", f"lower it, or raise {limit}"
                yield Fault(f"{path}.{name}", getattr(unroll, name), problem, cure)


def _horizons(path: str, horizons: tuple[int, ...] | None, inner: Inner) -> Iterable[Fault]:
    """Each a training, none longer than the whole one."""
    if horizons is not None and not horizons:
        yield Fault(path, [], "names no horizon", "write one or more, or leave it out")
    for number, steps in enumerate(horizons or ()):
        if not 1 <= steps <= inner.steps:
            problem = f"must be from 1 to inner.steps, {inner.steps}"
            yield Fault(f"{path}[{number}]", steps, problem, "change it, or inner.steps")


def horizons_reach_every_window(outer: Outer, inner: Inner, tune: Tune) -> Iterable[Fault]:
    """A training that schedules are stretched onto has a step in each of their windows."""
    for path, unroll in said(outer, "unroll"):
        if not isinstance(unroll, Full):
            continue
        for number, steps in enumerate(unroll.horizons or ()):
            for _, entry, settings in tune.entries():
                windows = getattr(settings, "windows", 1)
                # More windows than steps, and more steps than the training has, are known faults.
                if not windows <= inner.steps or not 1 <= steps <= inner.steps:
                    continue
                # As `inner.horizons` stretches, and `tunables.windows` divides.
                reached = {t * inner.steps // steps * windows // inner.steps for t in range(steps)}
                if len(reached) < windows:
                    problem = f"has no inner step in a window of {entry}, of {windows}"
                    cure = f"raise it, or lower {entry}.windows"
                    yield Fault(f"{path}.horizons[{number}]", steps, problem, cure)


def rates_are_of_what_is_tuned(outer: Outer, tune: Tune) -> Iterable[Fault]:
    """Outer learning rates by entry of `tune` are above zero, and of entries that are there."""
    for path, optimizer in said(outer, "optimizer"):
        for name, rate in (optimizer.per_tunable or {}).items():
            here = f"{path}.per_tunable.{name}"
            yield from _not_tuned(here, rate, name, tune)
            if rate <= 0:
                yield Fault(here, rate, "must be a number above 0", "leave it out for the others'")


def clips_are_of_what_is_tuned(outer: Outer, tune: Tune) -> Iterable[Fault]:
    """Norms by entry of `tune` are of entries that are there."""
    for name, norm in outer.clip.items() if isinstance(outer.clip, Mapping) else ():
        yield from _not_tuned(f"outer.clip.{name}", norm, name, tune)


def _not_tuned(path: str, value: float, name: str, tune: Tune) -> Iterable[Fault]:
    sections = {"optimizer": OptimizerFields, "loss_terms": LossTerms}
    names = [field.name for field in fields(tune) if field.name not in sections]
    within = {field.name: key for key, kind in sections.items() for field in fields(kind)}
    names += within
    if name not in names:
        yield unknown(path, value, "tunable", name, names)
    elif name not in {key for key, _, _ in tune.entries()}:
        entry = f"tune.{name}" if name in vars(tune) else f"tune.{within[name]}.{name}"
        yield Fault(path, value, f"{entry} isn't there", f"take it out, or tune {name}")


def sign_steps_begin_above_the_tolerance(outer: Outer, tune: Tune) -> Iterable[Fault]:
    """A search hasn't converged before it begins."""
    tuned = [key for key, _, _ in tune.entries()]
    for path, optimizer in said(outer, "optimizer"):
        if not isinstance(optimizer, Sign) or optimizer.tolerance is None or not tuned:
            continue
        own = optimizer.per_tunable or {}
        largest = max(own.get(name, optimizer.learning_rate) for name in tuned)
        if largest < optimizer.tolerance:
            problem = f"is above every first step size, {largest}: converged before it begins"
            cure = "lower it, or write null for never"
            yield Fault(f"{path}.tolerance", optimizer.tolerance, problem, cure)


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


def points_are_steps(outer: Outer, inner: Inner) -> Iterable[Fault]:
    """A training has a step for each point of its trajectory."""
    along = outer.objective.trajectory
    if along is not None and along.points > inner.steps:
        problem, cure = f"must be at most inner.steps, {inner.steps}", "lower it"
        yield Fault("outer.objective.trajectory.points", along.points, problem, cure)
