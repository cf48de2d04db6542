"""The estimators whose costs are foretold. A new one is a row of `COSTS`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from metatune.inner import InnerTraining
from metatune.plan import forward_mode, reverse_mode, zeroth_order
from metatune.plan.cost import Cost
from metatune.recipe import schema

COSTS: Mapping[type, Callable[[InnerTraining, Any, Path], Cost]] = {
    schema.MixFlow: reverse_mode.cost,
    schema.Reverse: reverse_mode.cost,
    schema.Forward: forward_mode.cost,
    schema.ForwardGradient: forward_mode.cost,
    schema.ZerothOrder: zeroth_order.cost,
}


class NotForetold(ValueError):
    """What an estimator costs can't be predicted."""


def cost(training: InnerTraining, spec: schema.Estimator, folder: Path) -> Cost:
    """What a hypergradient costs.

    Args:
        training: what is differentiated.
        spec: the estimator.
        folder: where checkpoints would lie on disk.

    Raises:
        CheckpointError: nothing fits the budget of the checkpoints.
        EstimatorError: the tangents exceed their budget, or no forward mode is there.
        NotForetold: the trainings are another program's.
    """
    if isinstance(spec, schema.External):
        raise NotForetold(
            f"memory and time of an external trainer can't be foretold: a hypergradient takes "
            f"{2 * spec.directions} of its trainings, {spec.parallel} at a time"
        )
    return COSTS[type(spec)](training, spec, folder)
