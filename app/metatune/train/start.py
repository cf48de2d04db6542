"""The start of an artefact in the place of a recipe's own."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from metatune.artefact import Artefact, ArtefactError, Initialisation
from metatune.hypergrad import State
from metatune.inner import InnerTraining, optimizers
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

    init = optimizers.build(
        training.recipe.inner.optimizer, training.names, training.model.config.transposed
    ).init

    @jax.jit
    def copied(params: Any) -> State:
        # Copies, because a training donates its state's buffers.
        params = jax.tree.map(jnp.copy, params)
        return State(params, init(params))

    params = jax.tree.map(leaf, training.names, shapes)
    return replace(training, initialise=lambda key: copied(params))


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
