"""The estimators whose costs are predicted. A new one is a row of `COSTS`."""

from collections.abc import Callable, Mapping
from pathlib import Path

from metatune.hypergrad.sharding import member_axis
from metatune.hypergrad.stores import device_bytes
from metatune.inner import InnerTraining
from metatune.plan import forward_mode, persistent, reverse_mode, zeroth_order
from metatune.plan.cost import Cost, Seconds
from metatune.plan.memory import Memory
from metatune.plan.over_sizes import over_sizes
from metatune.plan.progress import Tell
from metatune.plan.timing import Lines
from metatune.recipe import schema
from metatune.transfer.sized import sizes

COSTS: Mapping[type, Callable[..., Cost]] = {
    schema.MixFlowSpec: reverse_mode.cost,
    schema.ReverseSpec: reverse_mode.cost,
    schema.ForwardSpec: forward_mode.cost,
    schema.ForwardGradientSpec: forward_mode.cost,
    schema.ZerothOrderSpec: zeroth_order.cost,
    schema.PersistentESSpec: persistent.cost,
}


class NotPredicted(ValueError):
    """What an estimator costs can't be predicted."""


def cost(
    training: InnerTraining, spec: schema.EstimatorSpec, folder: Path, tell: Tell = lambda *_: None
) -> Cost:
    """What a hypergradient costs.

    Args:
        training: what is differentiated.
        spec: the estimator.
        folder: where checkpoints would lie on disk.
        tell: is told how far the prediction is.

    Raises:
        CheckpointError: nothing fits the budget of the checkpoints.
        EstimatorError: the tangents exceed their budget, or no forward mode is there.
        NotPredicted: the trainings are another program's.
    """
    trainer = training.recipe.trainer
    if trainer is not None and isinstance(spec, schema.ZerothOrderSpec):
        raise NotPredicted(
            f"memory and time of an external trainer can't be predicted: a hypergradient takes "
            f"{2 * spec.directions} of its trainings, {trainer.parallel} at a time"
        )
    make, robust = COSTS[type(spec)], training.recipe.outer.robust
    if robust is not None:
        several = sizes(training)
        costs = [make(each.training, spec, folder, tell) for each in several]
        return over_sizes(several, costs, robust.seeds)
    return _of_population(training, make(training, spec, folder, tell))


def add_members(training: InnerTraining, memory: Memory) -> Memory:
    """What a population needs: the states of its members, too.

    As if there were one device, and without the steps to the ages that they begin with.
    """
    population, unroll = training.recipe.outer.population, training.recipe.outer.unroll
    if population is None:
        return memory
    copies = 0
    if isinstance(
        unroll, schema.OnlineSpec
    ):  # those that go on, and, one by one, those trained anew
        copies = population.members * (1 if population.vmap else 2)
    shapes = training.shapes()
    # Those that go on lie as the program has them, the others each where it is trained.
    parts = member_axis(shapes).parts if population.vmap else 1
    state = device_bytes(shapes) // parts
    return memory._replace(state=memory.state + copies * state)


def repeats(training: InnerTraining) -> int:
    """How often a hypergradient is taken for an outer step: of members one by one, as many.

    Of several sizes, one of each counts as one.
    """
    population, robust = training.recipe.outer.population, training.recipe.outer.robust
    if robust is not None:
        return robust.seeds
    return 1 if population is None or population.vmap else population.members


def _of_population(training: InnerTraining, found: Cost) -> Cost:
    def seconds(lines: Lines) -> Seconds:
        one = found.seconds(lines)
        return one._replace(hypergradient=repeats(training) * one.hypergradient)

    return found._replace(memory=add_members(training, found.memory), seconds=seconds)
