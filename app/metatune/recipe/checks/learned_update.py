"""Rules on learned updates and what else is there."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import get_args

from metatune.recipe.faults import Fault
from metatune.recipe.schema import (
    InnerSpec,
    LearnedUpdateSpec,
    LearningRatesSpec,
    PerElement,
    ScheduleFreeAdamWSpec,
)

PATH = "tune.learned_update"


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
    if isinstance(inner.optimizer, ScheduleFreeAdamWSpec):
        problem = f"inner.optimizer is {inner.optimizer.kind}, whose average the steps only feed"
        cure = "take another inner.optimizer, or take it out"
        yield Fault(PATH, asdict(tune_learned_update), problem, cure)
