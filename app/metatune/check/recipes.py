"""A recipe's own training, as what is checked: the very trainings that a search begins with."""

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from metatune.check.growth import LIMIT
from metatune.check.subject import Draw, Subject, Watch
from metatune.data import Batch, stratified_batches
from metatune.inner import InnerTraining, estimators, rescaled
from metatune.inner.metrics import held_out_batches
from metatune.inner.origin import origin
from metatune.inner.seeds import Purpose, Stream, data_seed, direction_key, model_key
from metatune.recipe.faults import Fault, RecipeError
from metatune.recipe.phases import alone, resolved
from metatune.recipe.schema import (
    FullSpec,
    OnlineSpec,
    PersistentESSpec,
    Recipe,
    TruncatedSpec,
)
from metatune.recipe.trajectory import points
from metatune.tunables.blocks import blocks


def first_phase_alone(recipe: Recipe) -> Recipe:
    """The recipe that is the first phase of a search, and no more: what begins at its own η.

    Raises:
        RecipeError: it has no hypergradient that could be compared with differences.
    """
    if recipe.trainer is not None:
        problem = "trains elsewhere, with no hypergradient here that could be checked"
        cure = "check a training here: trainer=null outer.estimator.kind=mixflow"
        raise RecipeError("check", [Fault("trainer", asdict(recipe.trainer), problem, cure)])
    first = alone(recipe, resolved(recipe.outer)[0])
    if isinstance(first.outer.estimator, PersistentESSpec):
        path, problem = "outer.estimator.kind", "is unbiased along a lifetime, not in an outer step"
        cure = "check the whole: outer.estimator={kind: zeroth_order} outer.unroll={kind: full}"
        raise RecipeError("check", [Fault(path, "persistent_es", problem, cure)])
    measure = recipe.outer.objective.measure
    if measure != "loss":
        path, problem = "outer.objective.measure", "moves in steps, so that differences converge to"
        cure = f"check the loss instead: {path}=loss"
        raise RecipeError("check", [Fault(path, measure, f"{problem} nothing", cure)])
    return first


def shortened(training: InnerTraining, steps: int) -> InnerTraining:
    """A training over fewer steps, its schedules and windows stretched with it.

    Raises:
        RecipeError: more steps than the recipe has, or fewer than windows.
    """
    most, least = training.recipe.inner.steps, most_windows(training)
    if not least <= steps <= most:
        problem = f"must be from {least}, a step for each window, to inner.steps, {most}"
        cure = "give another number, or leave it out for the recipe's own horizon"
        raise RecipeError("check", [Fault("--steps", steps, problem, cure)])
    return rescaled(training, steps)


def most_windows(training: InnerTraining) -> int:
    """Of any tunable."""
    return max(tunable.windows for tunable in training.tunables)


def subject_of(training: InnerTraining, folder: Path, watch: Watch = lambda work: None) -> Subject:
    """What an outer step of a recipe differentiates, at its starting meta-parameters.

    Where horizons grow along the search, the whole is what is checked.

    Args:
        training: of a recipe without phases.
        folder: for states that are kept on disk.
        watch: is told what is computed.
    """
    recipe = training.recipe
    steps, unroll = recipe.inner.steps, recipe.outer.unroll

    whole = _whole(training, folder, watch)
    match unroll:
        case FullSpec():
            return replace(whole, shorter=partial(_shorter, training, folder, watch))
        case TruncatedSpec(window=window):
            return replace(whole, window=min(window, steps), whole=whole)
        case OnlineSpec(window=window, lifetime=lifetime):
            life = min(lifetime or steps, steps)
            whole = replace(whole, blocks=(), origin=None)  # windows are those of a lifetime
            return replace(whole, steps=min(window, life), whole=replace(whole, steps=life))


def _whole(training: InnerTraining, folder: Path, watch: Watch) -> Subject:
    spec = training.recipe.outer.estimator
    return Subject(
        training.reweighted,
        training.initial_eta(),
        partial(draw, training),
        training.recipe.inner.steps,
        estimators.build(spec),
        partial(points, training.recipe.outer.objective.trajectory),
        checkpoints=estimators.checkpoints(spec, folder),
        watch=watch,
        blocks=blocks(training.tunables),
        origin=partial(
            origin, training.recipe.inner, times=LIMIT, steps=training.recipe.inner.steps
        ),
        choices=_choices(training),
    )


def _choices(training: InnerTraining) -> Callable[[Any, Batch], jax.Array] | None:
    """The experts that each token of a held-out batch passes through; None without experts."""
    model = training.model
    if model.config.experts is None:
        return None

    @jax.jit
    def chosen(params: Any, tokens: jax.Array, documents: jax.Array | None) -> jax.Array | None:
        routing = model.hidden_and_routing(params, tokens, documents)[1]
        return None if routing is None else routing.experts

    def of(params: Any, batch: Batch) -> Any:
        # The last token of a sequence is predicted, and predicts nothing.
        documents = None if batch.documents is None else jnp.asarray(batch.documents)[:, :-1]
        return chosen(training.merged(params), jnp.asarray(batch.tokens)[:, :-1], documents)

    return of


def _shorter(training: InnerTraining, folder: Path, watch: Watch, steps: int) -> Subject | None:
    """The subject of fewer steps; None where a window would have none."""
    if steps < most_windows(training):
        return None
    return _whole(rescaled(training, steps), folder, watch)


def draw(training: InnerTraining, index: int) -> Draw:
    """What outer step `index` of a search draws where everything is drawn anew."""
    recipe = training.recipe
    seed = partial(data_seed, recipe.seed, Purpose.HYPERGRADIENT, index)
    return Draw(
        training.initialise(model_key(recipe.seed, Purpose.HYPERGRADIENT, index)),
        stratified_batches(
            training.corpus,
            seed=seed(Stream.TRAINING),
            batch_size=recipe.data.batch_size,
            shares=training.trajectory(training.initial_eta()).mixture,
        ),
        held_out_batches(
            recipe.outer,
            training.corpus,
            "validation",
            seed=seed(Stream.HELD_OUT),
            sequences=recipe.outer.objective.sequences,
        ),
        direction_key(recipe.seed, index),
    )
