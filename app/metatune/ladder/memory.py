"""What a rung takes of the device, by its own programs: refused before anything is trained."""

from collections.abc import Sequence

import jax
import numpy as np

from metatune.data import sampled_batches
from metatune.hypergrad import as_argument, programs
from metatune.hypergrad.reverse.budget import amount
from metatune.hypergrad.segments import fetch
from metatune.hypergrad.stores import tree_bytes
from metatune.inner.metrics import held_out_batches
from metatune.ladder.measuring import Followed
from metatune.plan.compiling import analysed
from metatune.plan.memory import limit_bytes
from metatune.recipe.faults import Fault, RecipeError
from metatune.train.schedules import scheduled

SEED = (0,)
"""The shapes of batches don't depend on it."""


def needed_bytes(followed: Followed) -> int:
    """Bytes that a training takes: state, gradients, activations, and what measuring it takes.

    The very programs that train it are compiled, which they are once more from the cache.

    Args:
        followed: the training, at the schedules that it follows.
    """
    training, schedules, segment = followed
    recipe = training.recipe
    problem = as_argument(scheduled(training, schedules.tuned))
    state = jax.eval_shape(training.initialise, jax.random.key(0))
    batches = sampled_batches(
        training.corpus,
        seed=SEED,
        batch_size=recipe.data.batch_size,
        shares=np.tile(schedules.shares()[:1], (segment, 1)),
    )
    drawn = fetch(batches, 0, min(segment, recipe.inner.steps), min(segment, recipe.inner.steps))
    held_out = held_out_batches(
        recipe.outer,
        training.corpus,
        "test",
        seed=SEED,
        sequences=recipe.outer.test.sequences,
    )
    first = schedules.segment(0)
    compiled = analysed(
        {
            "a training": lambda: programs.advance.trace(problem, first, state, drawn),
            "its held-out loss": lambda: programs.value.trace(problem, state.params, held_out[0]),
        },
        lambda *_: None,
    )
    # The state of a segment takes the memory of the one before.
    return tree_bytes((state, first.hyper)) + max(each.temporary for each in compiled.values())


def refuse_larger(rungs: Sequence[tuple[str, Followed]]) -> None:
    """Refuses the largest rung that the device has no room for, naming the largest that fits.

    Args:
        rungs: by name, ascending.

    Raises:
        RecipeError: the largest doesn't fit.
    """
    limit, fault = limit_bytes(), None
    for name, followed in reversed(rungs):
        if (needed := needed_bytes(followed)) <= limit:
            if fault is not None:
                cure = f"the largest rung that fits is {name}; lower the rest, or data.batch_size"
                raise RecipeError("transfer", [Fault("--ladder", *fault, cure)])
            return
        if fault is None:
            problem = f"takes {amount(needed)} to train; this device has {amount(limit)}"
            fault = (name, problem)
    if fault is not None:
        cure = "none of the rungs fits: set inner.micro_batch, or take a larger device"
        raise RecipeError("transfer", [Fault("--ladder", *fault, cure)])
