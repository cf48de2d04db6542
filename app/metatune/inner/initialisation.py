"""The start of a recipe's training where it is tuned: further checkpoints, and the hook on η."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float32, Key

from metatune.hypergrad import State
from metatune.hypergrad.shapes import OptState, Params
from metatune.inner import seeds
from metatune.inner.start import Start
from metatune.inner.trainable import Trainable
from metatune.models import LanguageModel, load_pretrained, locate, weights_sha256
from metatune.recipe import schema
from metatune.recipe.faults import Fault, RecipeError
from metatune.tunables import Begins, Tunable
from metatune.tunables.shapes import Names, Slices, Weights

CHECKPOINTS = "tune.initialisation.checkpoints"


class Ingredients(NamedTuple):
    """The further checkpoints that a start is interpolated towards.

    Attributes:
        params: all parameters of each.
        sha256: of their weights, by the name that the recipe has for them.
    """

    params: tuple[Weights, ...] = ()
    sha256: Mapping[str, str] = {}


def ingredients(spec: schema.InitialisationSpec | None, begin: Start) -> Ingredients:
    """Loads the further checkpoints of a recipe, if it has any.

    Args:
        spec: the recipe's `tune.initialisation`.
        begin: the model, pretrained.

    Raises:
        RecipeError: with all faults of them: one isn't there, or its parameters are others.
    """
    faults: list[Fault] = []
    params, hashes = [], {}
    sources = spec.checkpoints if isinstance(spec, schema.InterpolationSpec) else ()
    for index, source in enumerate(sources):
        path = f"{CHECKPOINTS}[{index}]"
        try:
            folder = locate(source)
            model, found = load_pretrained(folder)
            hashes[source] = weights_sha256(folder)
        except RecipeError as error:
            faults += [replace(fault, path=path, value=source) for fault in error.faults]
            continue
        faults += _misfits(path, source, model, begin.model)
        params.append(found)
    if faults:
        raise RecipeError(CHECKPOINTS, faults)
    return Ingredients(tuple(params), hashes)


def hook(
    tuning: Sequence[Tunable],
    init: Callable[[Params], OptState],
    part: Trainable,
    others: Ingredients,
) -> Callable[[Slices, State], State] | None:
    """`Problem.start` of what is tuned; None where no start is.

    Args:
        tuning: the tunables.
        init: parameters to the state of the optimizer, which may hold copies of them.
        part: what is trained.
        others: further checkpoints.
    """
    found = [tunable for tunable in tuning if isinstance(tunable, Begins)]
    if not found:
        return None
    (tunable,) = found

    def start(others: Sequence[Params], eta: Slices, state: State) -> State:
        params = tunable.begin(eta[tunable.key], state.params, others)
        return State(params, init(params))

    # Bound, because in a closure they would become constants of the programs.
    trained = [part.trained(params, jax.random.key(0)) for params in others.params]
    return jax.tree_util.Partial(start, trained)


def of_one_draw(
    spec: schema.InitialisationSpec | None,
    initialise: Callable[[Key[Array, ""]], State],
    seed: int,
) -> Callable[[Key[Array, ""]], State]:
    """The state that trainings start from: where a point is tuned, that of the recipe's seed.

    Args:
        spec: the recipe's `tune.initialisation`.
        initialise: a key to a state.
        seed: the recipe's.
    """
    if not isinstance(spec, schema.PointSpec):
        return initialise
    return lambda key: initialise(seeds.key(seed))


def by_name(names: Names, params: Weights) -> dict[str, Float32[np.ndarray, "..."]]:
    """Trained parameters by checkpoint name.

    Args:
        names: `ParameterNames` at the leaves of a tree like the parameters.
        params: the parameters.
    """
    found: dict[str, Float32[np.ndarray, "..."]] = {}
    for leaf, array in zip(jax.tree.leaves(names), jax.tree.leaves(params), strict=True):
        whole = np.asarray(array, np.float32)
        parts = whole if leaf.stacked else whole[None]
        found |= dict(zip(leaf.names, parts, strict=True))
    return found


def _misfits(path: str, source: str, model: LanguageModel, base: LanguageModel) -> list[Fault]:
    """A fault if a model has other parameters than that of the recipe."""
    theirs, ours = _shapes(model), _shapes(base)
    other = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
    if not other:
        return []
    name = other[0]
    problem = (
        f"has other parameters than model.pretrained, {len(other)} in all: {name} is "
        f"{theirs.get(name, 'not there')}, not {ours.get(name, 'there')}"
    )
    return [Fault(path, source, problem, "take a checkpoint of the same architecture")]


def _shapes(model: LanguageModel) -> dict[str, list[int]]:
    shapes = jax.tree.leaves(model.init_shapes())
    return {
        name: list(shape.shape[leaf.stacked :])
        for leaf, shape in zip(jax.tree.leaves(model.names()), shapes, strict=True)
        for name in leaf.names
    }
