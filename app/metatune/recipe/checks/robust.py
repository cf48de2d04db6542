"""Rules on tuning for transfer: what has no meaning at several sizes."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Final, get_args

from metatune.recipe.faults import Fault
from metatune.recipe.phases import said
from metatune.recipe.schema import (
    GroupsSpec,
    InitialisationSpec,
    InnerSpec,
    LearnedUpdateSpec,
    LearningRatesSpec,
    ModelSpec,
    OnlineSpec,
    OuterSpec,
    PerElement,
    PersistentESSpec,
    RobustSpec,
    TrainerSpec,
)

PATH: Final = "outer.robust"
WITHOUT: Final = f"leave {PATH} out"

SAID: Final = ("adamw", "muon", "normuon", "muonh", "adamh")
OPTIMIZERS: Final = {
    "none": None,
    "mup": (*SAID, "sgd"),
    "completep": SAID,
    "complete_d_p": SAID,
}
"""The inner optimizers that each rule says something of, as of `metatune.transfer`; None: all."""


def there_are_several_sizes(outer_robust: RobustSpec) -> Iterable[Fault]:
    """Of one size there is nothing to be robust against; the recipe's own is one of several."""
    widths, depths = outer_robust.widths, outer_robust.depths
    if len(widths) * len(depths) == 1:
        problem = "is a single size"
        cure = "write widths: [1, 2], say, or take outer.population for several seeds"
        yield Fault(PATH, asdict(outer_robust), problem, cure)
    for name, factors in (("widths", widths), ("depths", depths)):
        if 1 not in factors and factors:
            problem = "must hold 1, the recipe's own size, which the result is measured at"
            yield Fault(f"{PATH}.{name}", list(factors), problem, "add it")


def several_sizes_are_a_population_of_their_own(
    outer_robust: RobustSpec, outer: OuterSpec
) -> Iterable[Fault]:
    """Members have their seeds from here, and live for one outer step."""
    if outer.population is not None:
        problem = f"{PATH} has several trainings already, each of a size and a seed"
        yield Fault(
            "outer.population", asdict(outer.population), problem, f"write {PATH}.seeds instead"
        )
    if outer.steps is None and not outer.phases:
        return
    for path, unroll in said(outer, "unroll"):
        if isinstance(unroll, OnlineSpec):
            problem = f"goes on from outer step to outer step, which trainings of {PATH} don't"
            yield Fault(f"{path}.kind", unroll.kind, problem, f"take full, or {WITHOUT}")
    for path, estimator in said(outer, "estimator"):
        if isinstance(estimator, PersistentESSpec):
            problem = f"has trainings of its own that live on, all of one size: none of {PATH}"
            yield Fault(f"{path}.kind", estimator.kind, problem, f"take mixflow, or {WITHOUT}")


def other_sizes_train_from_scratch(outer_robust: RobustSpec, model: ModelSpec) -> Iterable[Fault]:
    """Pretrained weights are of one size."""
    if model.pretrained is not None:
        problem = f"is a model of one size, but {PATH} trains several"
        cure = f"take a fresh model (model.config), or {WITHOUT}"
        yield Fault("model.pretrained", model.pretrained, problem, cure)


def other_sizes_train_all_parameters(outer_robust: RobustSpec, inner: InnerSpec) -> Iterable[Fault]:
    """By an optimizer of the rule, and without what it says nothing of."""
    allowed = OPTIMIZERS[outer_robust.rule]
    found = inner.optimizer.groups if isinstance(inner.optimizer, GroupsSpec) else ()
    kinds = {f"inner.optimizer.groups[{at}].kind": each.kind for at, each in enumerate(found)}
    kinds = kinds or {"inner.optimizer.kind": inner.optimizer.kind}
    if inner.lora is not None:
        problem = f"is on top of weights of one size, but {PATH} trains several"
        yield Fault("inner.lora", asdict(inner.lora), problem, WITHOUT)
    if inner.train is not None:
        problem = f"the rules of {PATH} are about trainings of all of a model's parameters"
        yield Fault("inner.train", list(inner.train), problem, f"leave it out, or {WITHOUT}")
    unsaid = {} if allowed is None else {at: k for at, k in kinds.items() if k not in allowed}
    for path, kind in unsaid.items():
        problem = f"{outer_robust.rule} says nothing of it (only of {', '.join(allowed or ())})"
        cure = f"write {PATH}.rule: none, which keeps the rates, or {WITHOUT}"
        yield Fault(path, kind, problem, cure)
    by_gradient = allowed is not None and not unsaid and "sgd" in kinds.values()
    if by_gradient and inner.optimizer.clip_norm is not None:
        problem = "the norm of all gradients grows with the width: the rule can't say how"
        cure = f"write null, or {PATH}.rule: none"
        yield Fault("inner.optimizer.clip_norm", inner.optimizer.clip_norm, problem, cure)
    if allowed is not None and inner.loss is not None and inner.loss.multi_token_prediction:
        problem = f"{outer_robust.rule} says nothing of a head for the token after the next"
        path = "inner.loss.multi_token_prediction"
        yield Fault(path, asdict(inner.loss.multi_token_prediction), problem, WITHOUT)


def other_sizes_have_other_elements(
    outer_robust: RobustSpec, tune_learning_rates: LearningRatesSpec
) -> Iterable[Fault]:
    """Rates within tensors have the shapes of one model."""
    if tune_learning_rates.per in get_args(PerElement):
        problem = f"is within tensors, whose shapes are others at other sizes of {PATH}"
        cure = f"take kind, layer or tensor, or {WITHOUT}"
        yield Fault("tune.learning_rates.per", tune_learning_rates.per, problem, cure)


def other_sizes_start_elsewhere(
    outer_robust: RobustSpec, tune_initialisation: InitialisationSpec
) -> Iterable[Fault]:
    """A tuned start has the shapes of one model."""
    problem = f"has the shapes of one model, but {PATH} trains several"
    yield Fault("tune.initialisation.kind", tune_initialisation.kind, problem, WITHOUT)


def no_rule_carries_learned_updates(
    outer_robust: RobustSpec, tune_learned_update: LearnedUpdateSpec
) -> Iterable[Fault]:
    """No rule says how networks that correct the step follow the sizes."""
    problem = f"no rule of {PATH} says how networks that correct the step follow the sizes"
    yield Fault("tune.learned_update", asdict(tune_learned_update), problem, WITHOUT)


def an_external_trainer_has_one_size(
    outer_robust: RobustSpec, trainer: TrainerSpec
) -> Iterable[Fault]:
    """Its model is its own affair."""
    problem = f"trains elsewhere, at a size that {PATH} can't change"
    yield Fault("trainer.command", trainer.command, problem, WITHOUT)
