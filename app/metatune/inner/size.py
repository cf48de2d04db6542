"""Sizes of a recipe that no machine could hold, found by counting before any array exists."""

import math
from collections.abc import Iterator
from typing import Final

import jax

from metatune.hypergrad.reverse.budget import amount
from metatune.hypergrad.stores import device_bytes, free_memory
from metatune.inner.training import InnerTraining
from metatune.models import LanguageModel
from metatune.recipe import schema
from metatune.recipe.faults import Fault, RecipeError

MOST_PARAMETERS: Final = 2**42
"""Beyond any language model; what fits here is counted before something is computed."""

NUMBER_BYTES: Final = 8
"""Of a rate in the curves over all steps, which are kept in float64."""

TOKEN_BYTES: Final = 4


def faults(
    model: LanguageModel,
    data: schema.DataSpec,
    inner: schema.InnerSpec | None,
    outer: schema.OuterSpec | None,
) -> Iterator[Fault]:
    """A fault for each size whose arrays alone are larger than the memory of this machine.

    Args:
        model: the language model; nothing of it is computed.
        data: the recipe's section.
        inner: the recipe's section, where it is sound.
        outer: the recipe's section, where it is sound.
    """
    shapes = model.init_shapes()
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    if count > MOST_PARAMETERS:
        problem = f"gives {count:,} parameters; must be {MOST_PARAMETERS:,} at most"
        yield Fault("model", model.family, problem, "lower its sizes or its number of layers")
    free = free_memory()
    names = sum(len(leaf.names) for leaf in jax.tree.leaves(model.names()))
    sizes = [
        ("data.batch_size", data.batch_size, data.batch_size * data.sequence_length * TOKEN_BYTES)
    ]
    if inner is not None:
        sizes.append(("inner.steps", inner.steps, inner.steps * names * NUMBER_BYTES))
    for path, sequences in _held_out(outer):
        sizes.append((path, sequences, sequences * data.sequence_length * TOKEN_BYTES))
    for path, value, needed in sizes:
        if needed > free:
            problem = f"takes {amount(needed)} of arrays alone; this machine has {amount(free)}"
            yield Fault(path, value, problem, "lower it")


def _held_out(outer: schema.OuterSpec | None) -> Iterator[tuple[str, int]]:
    if outer is not None:
        yield "outer.objective.sequences", outer.objective.sequences
        yield "outer.validation.sequences", outer.validation.sequences
        yield "outer.test.sequences", outer.test.sequences


def refuse_larger_than_memory(training: InnerTraining) -> None:
    """Refuses a training whose state and gradients alone are larger than a device's memory.

    Args:
        training: the training.

    Raises:
        RecipeError: it is.
    """
    state, family = training.shapes(), training.model.family
    needed = device_bytes(state) + device_bytes(state.params)
    stats = jax.local_devices()[0].memory_stats() or {}
    limit = stats.get("bytes_limit", free_memory())
    if needed > limit:
        problem = (
            f"takes {amount(needed)} for parameters, optimizer state and gradients alone; there "
            f"are {amount(limit)}"
        )
        cure = (
            "take a smaller model, train a part of it (inner.lora), cut it over several devices "
            "(devices.fsdp), or take a larger machine"
        )
        raise RecipeError("recipe", [Fault("model", family, problem, cure)])
