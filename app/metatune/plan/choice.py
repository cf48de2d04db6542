"""The estimator of a recipe that leaves it to metatune: the fastest of those that fit.

In gradients of an inner step, reverse mode takes about 4, forward mode 1 + 2N with N
meta-parameters: it is faster for N = 1 alone. Its N tangents take less memory than the 2√T states
of reverse mode with checkpoints while N < 2√T. A forward gradient takes the memory of a single
direction, at the price of noise.
"""

from collections.abc import Iterator
from math import sqrt
from pathlib import Path
from typing import Final, NamedTuple

import jax

from metatune.hypergrad import CheckpointError, EstimatorError
from metatune.hypergrad.reverse.budget import amount
from metatune.inner import InnerTraining
from metatune.plan.cost_model import cost
from metatune.plan.memory import limit_bytes
from metatune.plan.progress import Listener, silent, told
from metatune.plan.work import horizon, together
from metatune.recipe import schema

DIRECTIONS: Final = 8


class Choice(NamedTuple):
    """What was chosen.

    Attributes:
        spec: the estimator.
        why: in a sentence.
    """

    spec: schema.EstimatorSpec
    why: str


def choose(
    training: InnerTraining, auto: schema.AutoSpec, *, folder: Path, listener: Listener = silent
) -> Choice:
    """The first of the candidates, in the order of their time, that fits the device.

    Args:
        training: what is to be differentiated.
        auto: what the recipe says.
        folder: where checkpoints would lie on disk.
        listener: is told how far it is.

    Raises:
        EstimatorError: none fits.
    """
    limit, refused = limit_bytes(), []
    for spec, reason in candidates(training, auto):
        try:
            memory = cost(training, spec, folder, told(listener, f"room for {spec.kind}")).memory
        except (CheckpointError, EstimatorError) as error:
            refused.append(f"{spec.kind}: {error}")
            continue
        needed = memory.with_host
        if needed <= limit:
            because = "; ".join([reason, f"it takes {amount(needed)} of {amount(limit)}", *refused])
            return Choice(spec, f"{spec.kind}, because {because}")
        refused.append(f"{spec.kind} would take {amount(needed)}")
    raise EstimatorError(
        f"no estimator fits {amount(limit)}: {'; '.join(refused)}; lower data.batch_size, set "
        "inner.micro_batch or model.remat=true, or take a larger device"
    )


def candidates(
    training: InnerTraining, auto: schema.AutoSpec
) -> Iterator[tuple[schema.EstimatorSpec, str]]:
    """Estimators with the reason to take them, the fastest first."""
    measure = training.recipe.outer.objective.measure
    if measure != "loss":
        why = f"{measure} can't be differentiated"
        yield schema.ZerothOrderSpec(segment=auto.segment), why
        return
    count = meta_parameters(training)
    exact = f"it is exact, and the fastest that fits for N = {count} meta-parameters"
    reverse = {"segment": auto.segment, "checkpoints": auto.checkpoints}
    forward = together(training.recipe) is None  # members in one program are for reverse mode
    if count == 1 and forward:
        yield schema.ForwardSpec(segment=auto.segment), exact
    yield schema.MixFlowSpec(**reverse), exact
    yield schema.MixFlowSpec(**reverse, save_gradients=False), exact
    if count > 1 and forward_may_fit(training):
        yield schema.ForwardSpec(segment=auto.segment), exact
    if not forward:
        return
    directions = min(DIRECTIONS, count)
    noisy = schema.ForwardGradientSpec(
        directions=directions, segment=auto.segment, distribution="orthogonal", chunk=1
    )
    yield noisy, f"nothing exact fits; {directions} of {count} directions are unbiased"


def forward_may_fit(training: InnerTraining) -> bool:
    """Whether forward mode may take less memory than reverse mode: N < 2√T, one by one."""
    if training.recipe.outer.robust is not None:
        return False  # what it takes isn't counted over several sizes
    few = meta_parameters(training) < 2 * sqrt(horizon(training.recipe).window)
    return few and together(training.recipe) is None


def meta_parameters(training: InnerTraining) -> int:
    """How many there are, N."""
    return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(training.initial_eta)))
