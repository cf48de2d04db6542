"""A training whose steps the networks of an artefact correct."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metatune import artefact
from metatune.hypergrad import State
from metatune.inner import InnerTraining, optimizers
from metatune.models import ParameterNames
from metatune.tunables import Correction, Form, Networks, TunableLearnedUpdate


def corrected(training: InnerTraining, learned: artefact.LearnedUpdate | None) -> InnerTraining:
    """The training with an artefact's learned update in the place of the recipe's own.

    Args:
        training: the training.
        learned: the artefact's; None for the optimizer's own steps.
    """
    own = any(isinstance(tunable, TunableLearnedUpdate) for tunable in training.tunables)
    if learned is None and not own:
        return training
    optimizer = optimizers.build(
        training.recipe.inner.optimizer,
        training.names,
        training.model.config.transposed,
        learned and _form(learned, training.names),
    )
    initialise, init = training.initialise, jax.jit(optimizer.init)

    def anew(key: jax.Array) -> State:
        params = initialise(key).params
        return State(params, init(params))

    return replace(
        training,
        initialise=anew,
        reweighted=replace(training.reweighted, update=optimizer.update),
        sampled=replace(training.sampled, update=optimizer.update),
    )


def _form(learned: artefact.LearnedUpdate, names: Any) -> Form:
    number = {name: i for i, found in enumerate(learned.groups.values()) for name in found}

    def index(leaf: ParameterNames) -> np.ndarray:
        numbers = np.array([number.get(name, -1) for name in leaf.names], np.int32)
        return numbers if leaf.stacked else numbers[0]

    return Form(
        jax.tree.map(index, names),
        learned.decays,
        learned.second_moment_decay,
        learned.time_scales,
        learned.max_multiplier,
        learned.step_size == "kept",
    )


def corrections(learned: artefact.LearnedUpdate, steps: Sequence[int], total: int) -> Correction:
    """What corrects each of some steps of a training of `total`, stacked on axis 0."""

    def stacked(weights: np.ndarray) -> jax.Array:
        with_none = np.concatenate([weights, np.zeros_like(weights[:1])])
        return jnp.broadcast_to(jnp.asarray(with_none), (len(steps), *with_none.shape))

    networks = Networks(stacked(learned.hidden), stacked(learned.bias), stacked(learned.output))
    progress = jnp.asarray(steps, jnp.float32) / total
    return Correction(networks, progress)
