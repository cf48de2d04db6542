"""Rules on learned updates and what else is there."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Final, get_args

from metatune.recipe.faults import Fault
from metatune.recipe.schema import (
    AdamHSpec,
    GroupsSpec,
    InnerSpec,
    LearnedUpdateSpec,
    LearningRatesSpec,
    MuonHSpec,
    PerElement,
    ScheduleFreeAdamWSpec,
)

PATH = "tune.learned_update"

UNCORRECTED: Final[Mapping[type, str]] = {
    ScheduleFreeAdamWSpec: "whose average the steps only feed",
    AdamHSpec: "whose matrices keep their norm, whatever the size of a step",
    MuonHSpec: "whose matrices keep their norm, whatever the size of a step",
    GroupsSpec: "of which each steps along directions of its own",
}
"""Why there is no learned update of the optimizers that step along no direction."""


def one_size_of_the_step(
    tune_learned_update: LearnedUpdateSpec, tune_learning_rates: LearningRatesSpec
) -> Iterable[Fault]:
    """A network whose output is constant is a learning rate: it leaves the size to these."""
    learned, rates = tune_learned_update, tune_learning_rates
    if rates.per in get_args(PerElement):
        problem = f"{PATH} is tuned too: both say how far single elements move"
        cure = f"tune the rates of whole parameters, e.g. per: tensor, or take {PATH} out"
        yield Fault("tune.learning_rates.per", rates.per, problem, cure)
    if learned.step_size == "learned":
        problem = "tune.learning_rates is tuned too: both say how large a step is"
        cure = "write kept, or take out one of the two"
        yield Fault(f"{PATH}.step_size", learned.step_size, problem, cure)


def a_step_can_be_corrected(
    tune_learned_update: LearnedUpdateSpec, inner: InnerSpec
) -> Iterable[Fault]:
    """What a network multiplies is the step of the parameters that are measured."""
    if why := UNCORRECTED.get(type(inner.optimizer)):
        problem = f"inner.optimizer is {inner.optimizer.kind}, {why}"
        cure = "take another inner.optimizer, or take it out"
        yield Fault(PATH, asdict(tune_learned_update), problem, cure)
