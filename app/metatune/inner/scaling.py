"""Numbers by name as trees like the parameters, and trainings that start with them as scales."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import jax
import numpy as np
from jaxtyping import Array, Float, PyTree

from metatune.hypergrad import State
from metatune.hypergrad.shapes import OptState, Params, Shapes
from metatune.inner.training import InnerTraining
from metatune.models import ParameterNames
from metatune.tunables.shapes import Names


def by_parameter(
    names: Names, shapes: Shapes, values: Mapping[str, float], missing: float | None = 1.0
) -> PyTree[Float[np.ndarray, "..."] | None]:
    """Numbers by checkpoint name as a tree like the parameters, each leaf of its rank.

    Args:
        names: `ParameterNames` at the leaves of a tree like the parameters.
        shapes: of the parameters.
        values: by name.
        missing: of a parameter that has none; None to leave out a leaf that has none.
    """

    def leaf(
        named: ParameterNames, shape: jax.ShapeDtypeStruct | Float[Array, "..."]
    ) -> Float[np.ndarray, "..."] | None:
        if missing is None and not any(name in values for name in named.names):
            return None
        found = np.asarray([values.get(name, missing) for name in named.names], np.float64)
        layers = (len(found),) if named.stacked else ()
        return found.reshape(*layers, *(1,) * (len(shape.shape) - len(layers)))

    return jax.tree.map(leaf, names, shapes)


def scaled(
    training: InnerTraining, scales: Mapping[str, float], init: Callable[[Params], OptState]
) -> InnerTraining:
    """A training whose fresh numbers are so many times as large.

    Args:
        training: whose own are.
        scales: by checkpoint name; those that have none stay.
        init: parameters to the state of the optimizer.
    """
    shapes = jax.eval_shape(training.initialise, jax.random.key(0)).params
    factors = by_parameter(training.names, shapes, scales)

    @jax.jit
    def times(params: Params) -> State:
        params = jax.tree.map(
            lambda fresh, factor: fresh * factor.astype(fresh.dtype), params, factors
        )
        found = State(params, init(params))
        layout = training.layout
        return found if layout is None else State(*layout.kept(found, params))

    initialise = training.initialise
    return replace(training, initialise=lambda key: times(initialise(key).params))
