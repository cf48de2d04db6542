"""The way that is compiled and timed, from which others are counted."""

from pathlib import Path
from typing import NamedTuple

from metatune.inner import InnerTraining, estimators
from metatune.plan.cost import Cost, Seconds
from metatune.plan.cost_model import cost
from metatune.plan.memory import Memory
from metatune.plan.pace import Pace, pace
from metatune.plan.progress import Tell
from metatune.plan.timing import Timings, timed
from metatune.plan.work import Work
from metatune.recipe import schema


class MeasuredWay(NamedTuple):
    """A way to a hypergradient, compiled and timed.

    Attributes:
        training: with its estimator.
        cost: what it costs.
        timings: of its programs.
    """

    training: InnerTraining
    cost: Cost
    timings: Timings

    @property
    def spec(self) -> schema.EstimatorSpec:
        """The estimator."""
        return self.training.recipe.outer.estimator

    @property
    def memory(self) -> Memory:
        """Bytes at the peak of a hypergradient."""
        return self.cost.memory

    @property
    def best(self) -> Seconds:
        """From the least timings."""
        return self.cost.seconds(self.timings.best)

    @property
    def rounds(self) -> tuple[Seconds, ...]:
        """From the timings of each round."""
        return tuple(self.cost.seconds(lines) for lines in self.timings.rounds)

    def pace(self) -> Pace:
        """Seconds of a run."""
        rounds = tuple(each.hypergradient for each in self.rounds)
        work = Work(self.training, estimators.build(self.spec))
        return pace(work, self.best, rounds, self.cost.compilation)


def measured(training: InnerTraining, folder: Path, tell: Tell) -> MeasuredWay:
    """Compiles and times a training with its estimator.

    Args:
        training: the recipe's.
        folder: where the run would keep checkpoints on disk.
        tell: is told how far it is.

    Raises:
        CheckpointError: nothing fits the budget of the checkpoints.
        EstimatorError: the tangents exceed their budget.
        NotPredicted: what the estimator costs can't be predicted.
    """
    found = cost(training, training.recipe.outer.estimator, folder, tell)
    timings = timed(found.probes(), lambda lines: found.seconds(lines).hypergradient, tell)
    return MeasuredWay(training, found, timings)
