"""Rules between the inner optimizer and what is tuned of it."""

from collections.abc import Iterable
from dataclasses import asdict

from metatune.recipe.expressions import no_expressions
from metatune.recipe.faults import Fault
from metatune.recipe.phases import resolved
from metatune.recipe.schema import (
    AdamHSpec,
    GroupsSpec,
    InnerSpec,
    LionSpec,
    MuonHSpec,
    OuterSpec,
    PersistentESSpec,
    ScheduleFreeAdamWSpec,
    SingleOptimizerSpec,
    TuneSpec,
    ZerothOrderSpec,
)

PATH = "tune.optimizer"
GROUPS = "inner.optimizer.groups"


def some_field_is_tuned(tune: TuneSpec) -> Iterable[Fault]:
    """At least one number of the optimizer, where the section is there."""
    if tune.optimizer is not None and not any(asdict(tune.optimizer).values()):
        names = ", ".join(asdict(tune.optimizer))
        cure = f"write one of {names}, e.g. `weight_decay: {{}}`, or take {PATH} out"
        yield Fault(PATH, {}, "nothing of the optimizer is tuned", cure)


def an_optimizer_has_what_is_tuned(tune: TuneSpec, inner: InnerSpec) -> Iterable[Fault]:
    """Each optimizer has numbers of its own, and those that have a derivative can be tuned."""
    optimizer = inner.optimizer
    for key, path, settings in TuneSpec(optimizer=tune.optimizer).entries():
        if key in optimizer.TUNABLE:
            continue
        problem = f"inner.optimizer is {optimizer.kind}, which has no such number"
        if isinstance(optimizer, GroupsSpec):
            problem = "no group of inner.optimizer has such a number that can be tuned"
        elif hasattr(optimizer, key):
            problem = f"can't be tuned for {optimizer.kind}: {WHY[optimizer.kind]}"
        cure = f"take it out; what can be tuned is {', '.join(optimizer.TUNABLE)}"
        yield Fault(path, asdict(settings), problem, cure)


WHY = {
    "lion": "its sign has no derivative but zero",
    "adafactor": "its derivative is next to nothing",
    "schedule_free_adamw": "the average was taken with what it was",
}


def adapters_leave_zero(inner: InnerSpec) -> Iterable[Fault]:
    """The second matrix of an adapter is zero at first: where norms are kept, for good."""
    for path, each in _each(inner):
        if inner.lora is not None and isinstance(each, AdamHSpec | MuonHSpec):
            problem = f"{path} is {each.kind}, which keeps norms, and adapters begin with zeros"
            yield Fault("inner.lora", asdict(inner.lora), problem, f"take another {path}")
            return


def _each(inner: InnerSpec) -> Iterable[tuple[str, SingleOptimizerSpec]]:
    """The optimizers that there are, by their paths."""
    optimizer = inner.optimizer
    if not isinstance(optimizer, GroupsSpec):
        return (("inner.optimizer", optimizer),)
    return ((f"{GROUPS}[{place}]", each) for place, each in enumerate(optimizer.groups))


def groups_are_told_apart(inner: InnerSpec) -> Iterable[Fault]:
    """Each group but the last says by an expression what it takes: the last takes the rest."""
    if not isinstance(inner.optimizer, GroupsSpec):
        return
    *before, _ = inner.optimizer.groups
    for place, each in enumerate(before):
        if each.match is None:
            problem = "a group without it takes all that are left, so that none after it has any"
            cure = "write a regular expression, or make this group the last"
            yield Fault(f"{GROUPS}[{place}].match", None, problem, cure)
    said = {f"{GROUPS}[{i}].match": each.match for i, each in enumerate(inner.optimizer.groups)}
    yield from no_expressions({path: each for path, each in said.items() if each is not None})


def one_average_is_kept(tune: TuneSpec, inner: InnerSpec) -> Iterable[Fault]:
    """Schedule-free training has an average of its own, which is what is judged."""
    if tune.averaging is not None and isinstance(inner.optimizer, ScheduleFreeAdamWSpec):
        problem = f"inner.optimizer is {inner.optimizer.kind}, which averages by itself"
        cure = "take another inner.optimizer, or take it out"
        yield Fault("tune.averaging", asdict(tune.averaging), problem, cure)


def what_is_multiplied_is_not_zero(tune: TuneSpec, inner: InnerSpec) -> Iterable[Fault]:
    """A factor changes nothing of zero, nor of what isn't there."""
    for key, path, settings in TuneSpec(optimizer=tune.optimizer).entries():
        if isinstance(inner.optimizer, GroupsSpec) and key != "clip_norm":
            if key in inner.optimizer.TUNABLE and not inner.optimizer.starts(key):
                problem = f"{key} is 0 in all of {GROUPS}, which no factor changes"
                cure = "give it a value above 0 in one of them, or take this out"
                yield Fault(path, asdict(settings), problem, cure)
        elif key in inner.optimizer.TUNABLE and not getattr(inner.optimizer, key):
            start, field = getattr(inner.optimizer, key), f"inner.optimizer.{key}"
            problem = f"{field} is {'null' if start is None else 0}, which no factor changes"
            cure = f"give {field} a value above 0 to start from, or take this out"
            yield Fault(path, asdict(settings), problem, cure)


def gradients_show_in_the_update(
    tune: TuneSpec, inner: InnerSpec, outer: OuterSpec
) -> Iterable[Fault]:
    """What weighs data or loss acts through gradients, of which Lion takes the sign."""
    optimizers = [each for _, each in _each(inner)]
    if not all(isinstance(each, LionSpec) for each in optimizers):
        return
    if outer.steps is None and not outer.phases:
        return
    # Of what has no derivative, auto takes an estimator that differentiates nothing.
    by_values = outer.objective.measure != "loss" or all(
        isinstance(phase.estimator, ZerothOrderSpec | PersistentESSpec) for phase in resolved(outer)
    )
    if by_values:
        return
    for name in ("mixture", "loss_weights", "loss_terms"):
        if (settings := getattr(tune, name)) is not None:
            problem = "has a hypergradient of zero: lion takes the sign of the gradient"
            cure = "use estimator zeroth_order, another inner.optimizer, or take it out"
            yield Fault(f"tune.{name}", asdict(settings), problem, cure)
