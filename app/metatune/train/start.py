"""The start of an artefact in the place of a recipe's own, or the recipe's own at its scales."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from metatune.artefact import Artefact, ArtefactError, Initialisation
from metatune.artefact.demands import demands
from metatune.hypergrad import State
from metatune.inner import InnerTraining, optimizers, scaling
from metatune.models import ParameterNames
from metatune.recipe.faults import ABSENT, Fault


def started(training: InnerTraining, tuned: Artefact | None) -> InnerTraining:
    """A training that begins where the trainings of an artefact do.

    Args:
        training: of the recipe.
        tuned: an artefact of the same parameters; None for none.

    Returns:
        The same training where no start was tuned.

    Raises:
        ArtefactError: its weights are of other shapes.
    """
    if tuned is None or tuned.initialisation is None:
        return training
    shapes = jax.eval_shape(training.initialise, jax.random.key(0)).params
    _refuse_other_shapes(tuned.initialisation, training, shapes)
    weights = tuned.initialisation.parameters

    def leaf(named: ParameterNames, shape: jax.ShapeDtypeStruct) -> jax.Array:
        parts = [jnp.asarray(weights[name], shape.dtype) for name in named.names]
        return jnp.stack(parts) if named.stacked else parts[0]

    init = _init(training)

    @jax.jit
    def copied(params: Any) -> State:
        # Copies, because a training donates its state's buffers.
        params = jax.tree.map(jnp.copy, params)
        return State(params, init(params))

    params = jax.tree.map(leaf, training.names, shapes)
    return replace(training, initialise=lambda key: copied(params))


def scaled(training: InnerTraining, tuned: Artefact | None) -> InnerTraining:
    """A training whose fresh numbers are as large as a carried artefact asks.

    Args:
        training: of the recipe.
        tuned: an artefact of the same parameters; None for none.

    Returns:
        The same training where nothing is asked.
    """
    asked = None if tuned is None else demands(tuned)
    if asked is None or not asked.initial_scale:
        return training
    return scaling.scaled(training, asked.initial_scale, _init(training))


def _init(training: InnerTraining) -> Any:
    """What makes the state of the optimizer of parameters."""
    optimizer, transposed = training.recipe.inner.optimizer, training.model.config.transposed
    return optimizers.build(optimizer, training.names, transposed).init


def _refuse_other_shapes(start: Initialisation, training: InnerTraining, shapes: object) -> None:
    expected = {
        name: tuple(shape.shape[named.stacked :])
        for named, shape in zip(
            jax.tree.leaves(training.names), jax.tree.leaves(shapes), strict=True
        )
        for name in named.names
    }
    faults = []
    for name, shape in expected.items():
        held = start.parameters.get(name)
        if held is None or held.shape != shape:
            problem = f"must be {list(shape)}, as the recipe's model has it"
            said = ABSENT if held is None else list(held.shape)
            cure = "train the model that was tuned"
            faults.append(Fault(f"initialisation.{name}", said, problem, cure))
    if faults:
        raise ArtefactError("--with", faults)
