"""Rules on the search: its steps, its phases, what they differentiate through."""

from collections.abc import Iterable
from dataclasses import MISSING, asdict, fields

from metatune.recipe.faults import Fault
from metatune.recipe.phases import CHOICES, resolved, said
from metatune.recipe.schema import (
    AutoSpec,
    FullSpec,
    InnerSpec,
    MixFlowSpec,
    OnlineSpec,
    OuterSpec,
    PersistentESSpec,
    ReverseSpec,
    SignalSpec,
)


def steps_or_phases(outer: OuterSpec) -> Iterable[Fault]:
    """A search has a number of steps, or phases that have."""
    if outer.steps is None and outer.phases is None:
        cure = "write one of them, e.g. steps: 20"
        yield Fault("outer", {}, "must have exactly one of steps and phases", cure)
    if outer.steps is not None and outer.phases is not None:
        problem = "outer.phases is given too, each with steps of its own"
        yield Fault("outer.steps", outer.steps, problem, "take out outer.steps or outer.phases")
    if outer.phases is not None and not outer.phases:
        yield Fault("outer.phases", [], "names no phase", "write one or more, or outer.steps")


def choices_for_all_are_used(outer: OuterSpec) -> Iterable[Fault]:
    """What is chosen for all phases is the choice of one at least."""
    for field in fields(OuterSpec):
        if field.name not in CHOICES or not outer.phases:
            continue
        value = getattr(outer, field.name)
        default = field.default_factory() if field.default_factory is not MISSING else MISSING
        if value != default and all(getattr(phase, field.name) for phase in outer.phases):
            problem = f"every phase has {field.name} of its own"
            cure = f"take this one out, or {field.name} out of a phase that is to have it"
            yield Fault(f"outer.{field.name}", {"kind": value.kind}, problem, cure)


def signal_has_something_to_watch(outer: OuterSpec) -> Iterable[Fault]:
    """A section on it is of a search that goes back through a training, its whole or its end."""
    if not isinstance(outer.signal, SignalSpec):
        return
    ways = [each for _, each in said(outer, "estimator")]
    backward = any(isinstance(each, MixFlowSpec | ReverseSpec | AutoSpec) for each in ways)
    online = all(isinstance(each, OnlineSpec) for _, each in said(outer, "unroll"))
    if online or not backward:
        problem = "growth is watched where an estimator goes back through whole trainings alone"
        cure = "leave it out, or take outer.estimator.kind mixflow and outer.unroll.kind full"
        yield Fault("outer.signal", asdict(outer.signal), problem, cure)


def adjoints_begin_anew_between_segments(outer: OuterSpec) -> Iterable[Fault]:
    """Within a segment there is no state at hand to begin with."""
    for path, each in said(outer, "estimator"):
        damping = each.damping if isinstance(each, MixFlowSpec) else None
        if damping is not None and damping.restart and damping.every != "segment":
            problem = "an adjoint begins anew (restart) between segments alone"
            yield Fault(f"{path}.damping.every", damping.every, problem, "write every: segment")


def what_lives_on_is_online(outer: OuterSpec) -> Iterable[Fault]:
    """Trainings that live on from outer step to outer step are those of an online unroll."""
    if outer.steps is None and not outer.phases:
        return
    for phase in resolved(outer):
        if isinstance(phase.estimator, PersistentESSpec) and phase.unroll.kind != "online":
            own = outer.phases and outer.phases[phase.number].estimator
            path = f"outer.phases[{phase.number}].estimator" if own else "outer.estimator"
            problem = f"lives on from window to window, but the unroll is {phase.unroll.kind}"
            cure = "write unroll: {kind: online, window: 50}, or take zeroth_order"
            yield Fault(f"{path}.kind", phase.estimator.kind, problem, cure)


def unroll_fits_the_training(outer: OuterSpec, inner: InnerSpec) -> Iterable[Fault]:
    """Windows, lifetimes, horizons are no longer than the training, a window than its life."""
    for path, unroll in said(outer, "unroll"):
        if isinstance(unroll, FullSpec):
            yield from _horizons(path, unroll, inner)
            continue
        limits = {"window": ("inner.steps", inner.steps)}
        if isinstance(unroll, OnlineSpec) and unroll.lifetime is not None:
            limits["lifetime"] = limits["window"]
            if unroll.lifetime <= inner.steps:
                limits["window"] = (f"{path}.lifetime", unroll.lifetime)
        for name, (limit, most) in limits.items():
            if getattr(unroll, name) > most:
                problem, cure = f"must be at most {limit}, {most}", f"lower it, or raise {limit}"
                yield Fault(f"{path}.{name}", getattr(unroll, name), problem, cure)


def _horizons(path: str, unroll: FullSpec, inner: InnerSpec) -> Iterable[Fault]:
    """Each a training, none longer than the whole one; said in one way."""
    horizons = unroll.horizons
    if horizons is not None and unroll.fractions is not None:
        problem = f"{path}.horizons is given too"
        yield Fault(f"{path}.fractions", unroll.fractions, problem, "take out one of them")
    if horizons is not None and not horizons:
        cure = "write one or more, or leave it out"
        yield Fault(f"{path}.horizons", [], "names no horizon", cure)
    for number, steps in enumerate(horizons or ()):
        if not 1 <= steps <= inner.steps:
            problem = f"must be from 1 to inner.steps, {inner.steps}"
            cure = "change it, or inner.steps"
            yield Fault(f"{path}.horizons[{number}]", steps, problem, cure)
