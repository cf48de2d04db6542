"""Directions and members over an axis of a mesh: a part of `measure_mesh.py`."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from metatune.data import stratified_batches
from metatune.hypergrad import Member, State, hypergradient, hypergradients
from metatune.inner import InnerTraining, estimators, prepare
from metatune.inner.metrics import held_out_batches
from metatune.plan.mesh import on_mesh
from metatune.plan.mesh.axes import named
from metatune.recipe import schema


class Way(NamedTuple):
    """What has directions or members.

    Attributes:
        estimator: of the recipe.
        members: of its population; one for none.
        window: inner steps at the end that are differentiated; None for all.
        apart: inner steps that a member is behind the next.
    """

    estimator: schema.EstimatorSpec
    members: int = 1
    window: int | None = None
    apart: int = 0


MIXFLOW = schema.MixFlowSpec(segment=2)
CHUNKS = schema.ForwardGradientSpec(segment=2, directions=8, chunk=4)
WAYS: Mapping[str, Way] = {
    "forward": Way(schema.ForwardSpec(segment=2)),
    "forward_gradient, 8 directions in two chunks": Way(CHUNKS),
    "population of 4": Way(MIXFLOW, 4),
    "population of 4, the last two steps": Way(MIXFLOW, 4, window=2),
    "population of 4, at other ages": Way(MIXFLOW, 4, apart=1),
}
MESHES = ((2, 2, 2), (1, 2, 4))
"""Data, fsdp, members."""
PLANNED = (schema.DevicesSpec(fsdp=4), schema.DevicesSpec(fsdp=4, members=2))


def agreement(recipe: schema.Recipe) -> Iterator[str]:
    """Differences of hypergradients between meshes with such an axis and one device, in float64.

    Args:
        recipe: of one device, in float64.
    """
    yield "| | " + " | ".join(" x ".join(map(str, mesh)) for mesh in MESHES) + " |"
    yield "|---|" + "---|" * len(MESHES)
    with jax.enable_x64(True):
        one = _all_ways(recipe, schema.DevicesSpec())
        others = [
            _all_ways(recipe, schema.DevicesSpec(data, fsdp, 1, members))
            for data, fsdp, members in MESHES
        ]
    for name in WAYS:
        apart = (np.linalg.norm(other[name] - one[name]) for other in others)
        size = np.linalg.norm(one[name])
        yield f"| {name} | {' | '.join(f'{each / size:.1e}' for each in apart)} |"


def planned(recipe: schema.Recipe) -> Iterator[str]:
    """What a device takes, as planned, with and without such an axis.

    Args:
        recipe: of one device.
    """
    way = Way(CHUNKS)
    yield f"{CHUNKS.directions} directions, {CHUNKS.chunk} at a time:"
    yield "| | state | tangents | temporary arrays | products |"
    yield "|---|---|---|---|---|"
    for mesh in PLANNED:
        training = prepare(_recipe(recipe, way, mesh), elsewhere=True)
        plan = on_mesh(training, None, folder=Path())
        if plan.memory is None:
            raise ValueError(f"{named(mesh)} has no plan: {plan.problem}")
        memory = plan.memory
        parts = (memory.state, memory.carry, memory.activations + memory.logits)
        sizes = " | ".join(f"{part / 1e3:,.0f} kB" for part in parts)
        yield f"| {named(mesh)} | {sizes} | {plan.flops / 1e6:,.0f} MFLOP |"


def in_float64(training: InnerTraining, seed: int = 0) -> tuple[dict[str, Any], State]:
    """Meta-parameters and a state of a training, with floats of 64 bits."""
    eta, state = training.initial_eta(), training.initialise(jax.random.key(seed))
    eta, state = jax.tree.map(_widened, (eta, state))
    return eta, training.placed(state)


def _widened(leaf: Any) -> Any:
    return leaf.astype(jnp.float64) if leaf.dtype == jnp.float32 else leaf


def _recipe(recipe: schema.Recipe, way: Way, mesh: schema.DevicesSpec) -> schema.Recipe:
    several = schema.PopulationSpec(members=way.members) if way.members > 1 else None
    outer = replace(recipe.outer, estimator=way.estimator, population=several)
    # Few windows: forward mode compiles a program for each number of directions that act.
    rates = schema.LearningRatesSpec(per="layer", windows=2)
    tune = schema.TuneSpec(learning_rates=rates, mixture=schema.MixtureSpec(windows=1, floor=0.05))
    return replace(recipe, outer=outer, tune=tune, devices=mesh)


def _all_ways(recipe: schema.Recipe, mesh: schema.DevicesSpec) -> dict[str, np.ndarray]:
    """Hypergradients on a mesh by each way."""
    trainings: dict[Any, InnerTraining] = {}
    found = {}
    for name, way in WAYS.items():
        programs = way.estimator, way.members  # of these there is one set
        if programs not in trainings:
            trainings[programs] = prepare(_recipe(recipe, way, mesh))
        found[name] = _found(trainings[programs], way)
    return found


def _found(training: InnerTraining, way: Way) -> np.ndarray:
    """The hypergradient, of a population those of each member."""
    recipe, (eta, state) = training.recipe, in_float64(training)
    size, shares = recipe.data.batch_size, training.trajectory(training.initial_eta()).mixture
    of_seed = partial(stratified_batches, training.corpus, batch_size=size, shares=shares)
    given = {
        "steps": recipe.inner.steps - way.apart * (way.members - 1),
        "window": way.window,
        "estimator": estimators.build(way.estimator),
        "outer_batches": held_out_batches(
            recipe.outer, training.corpus, "validation", seed=(2,), sequences=size
        ),
    }
    if way.members == 1:
        key = jax.random.key(3)
        found = hypergradient(
            training.reweighted, eta, state, of_seed(seed=(1,)), key=key, **given
        ).gradient
    else:
        members = [
            Member(
                lambda number=number: in_float64(training, number)[1],
                of_seed(seed=(1, number)),
                number * way.apart,
            )
            for number in range(way.members)
        ]
        found = hypergradients(training.reweighted, eta, members, **given).diagnostics.members
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(found)])
