"""Rules between the search and what is tuned."""

from collections.abc import Iterable, Mapping
from dataclasses import fields

from metatune.recipe.faults import Fault, unknown
from metatune.recipe.moved import refusal
from metatune.recipe.phases import reaches, said, windows_of
from metatune.recipe.schema import (
    FullSpec,
    InnerSpec,
    LossTermsSpec,
    OptimizerFieldsSpec,
    OuterSpec,
    SignSpec,
    TuneSpec,
)
from metatune.recipe.schema.tune import KEYS, keyed


def horizons_reach_every_window(
    outer: OuterSpec, inner: InnerSpec, tune: TuneSpec
) -> Iterable[Fault]:
    """A training that schedules are stretched onto has a step in each of their windows."""
    for path, unroll in said(outer, "unroll"):
        if not isinstance(unroll, FullSpec):
            continue
        for number, steps in enumerate(unroll.horizons or ()):
            for entry, windows in windows_of(tune):
                # More windows than steps, and more steps than the training has, are known faults.
                known = not windows <= inner.steps or not 1 <= steps <= inner.steps
                if not known and not reaches(steps, inner.steps, windows):
                    problem = f"has no inner step in a window of {entry}, of {windows}"
                    cure = f"raise it, or lower {entry}.windows"
                    yield Fault(f"{path}.horizons[{number}]", steps, problem, cure)


def rates_are_of_what_is_tuned(outer: OuterSpec, tune: TuneSpec) -> Iterable[Fault]:
    """Outer learning rates by entry of `tune` are above zero, and of entries that are there."""
    for path, optimizer in said(outer, "optimizer"):
        for name, rate in (optimizer.per_tunable or {}).items():
            here = f"{path}.per_tunable.{name}"
            yield from _not_tuned(here, rate, name, tune)
            if rate <= 0:
                yield Fault(here, rate, "must be a number above 0", "leave it out for the others'")


def clips_are_of_what_is_tuned(outer: OuterSpec, tune: TuneSpec) -> Iterable[Fault]:
    """Norms by entry of `tune` are of entries that are there."""
    for name, norm in outer.clip.items() if isinstance(outer.clip, Mapping) else ():
        yield from _not_tuned(f"outer.clip.{name}", norm, name, tune)


def _not_tuned(path: str, value: float, name: str, tune: TuneSpec) -> Iterable[Fault]:
    sections = {"optimizer": OptimizerFieldsSpec, "loss_terms": LossTermsSpec}
    names = [field.name for field in fields(tune) if field.name not in sections]
    within = {field.name: key for key, kind in sections.items() for field in fields(kind)}
    names += within
    if name not in names:
        yield refusal(path, value) or unknown(path, value, "tunable", name, names)
    elif KEYS.get(name, name) not in {key for key, _, _ in tune.entries()}:
        entry = f"tune.{name}" if name in vars(tune) else f"tune.{within[name]}.{name}"
        yield Fault(path, value, f"{entry} isn't there", f"take it out, or tune {name}")


def sign_steps_begin_above_the_tolerance(outer: OuterSpec, tune: TuneSpec) -> Iterable[Fault]:
    """A search hasn't converged before it begins."""
    tuned = [key for key, _, _ in tune.entries()]
    for path, optimizer in said(outer, "optimizer"):
        if not isinstance(optimizer, SignSpec) or optimizer.tolerance is None or not tuned:
            continue
        own = keyed(optimizer.per_tunable or {})
        largest = max(own.get(name, optimizer.learning_rate) for name in tuned)
        if largest < optimizer.tolerance:
            problem = f"is above every first step size, {largest}: converged before it begins"
            cure = "lower it, or write null for never"
            yield Fault(f"{path}.tolerance", optimizer.tolerance, problem, cure)
