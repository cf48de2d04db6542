"""Schedules stretched onto a shorter training."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recipes import tiny

from metatune.data import stratified_batches
from metatune.hypergrad import as_argument, programs, train
from metatune.inner import prepare
from metatune.inner.horizons import Rescaled
from metatune.recipe import schema

RECIPE = tiny(
    inner={
        "optimizer": schema.AdamWSpec(learning_rate=0.01, schedule=schema.CosineSpec(warmup=0.0)),
        "steps": 12,
    },
    tune=schema.TuneSpec(
        learning_rates=schema.LearningRatesSpec(per="global", windows=3),
        mixture=schema.MixtureSpec(windows=2, floor=0.05),
    ),
)


def over(steps):
    """The recipe of a training that has so many steps from the start."""
    return dataclasses.replace(RECIPE, inner=dataclasses.replace(RECIPE.inner, steps=steps))


@pytest.fixture(scope="module")
def training():
    return prepare(RECIPE)


@pytest.fixture(scope="module")
def eta(training):
    """Meta-parameters that differ in every window."""
    leaves, treedef = jax.tree.flatten(training.initial_eta())
    keys = jax.random.split(jax.random.key(0), len(leaves))
    drawn = [jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(treedef, drawn)


@pytest.mark.parametrize("steps", [6, 12])
def test_is_the_training_that_was_so_short_from_the_start(training, eta, steps):
    """Exactly where the windows of both are the same fractions, as here."""
    stretched, short = Rescaled(training, steps), prepare(over(steps))
    hyper_at = jax.jit(stretched.problem.hyper_at)
    for step in map(jnp.int32, range(steps)):
        found, expected = hyper_at(eta, step), jax.jit(short.reweighted.hyper_at)(eta, step)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, expected)
    np.testing.assert_array_equal(stretched.shares(eta), short.trajectory(eta).mixture)


def test_each_step_is_like_one_of_the_whole(training, eta):
    whole = training.reweighted.hyper_at
    found = Rescaled(training, 5).problem.hyper_at
    for step, like in enumerate(map(jnp.int32, [0, 2, 4, 7, 9])):  # ⌊12 step / 5⌋
        jax.tree.map(np.testing.assert_array_equal, found(eta, jnp.int32(step)), whole(eta, like))
    rows = training.trajectory(eta).mixture[[0, 2, 4, 7, 9]]
    np.testing.assert_array_equal(Rescaled(training, 5).shares(eta), rows)


def test_all_lengths_are_of_one_compilation(training, eta):
    traces = []

    def update(*arguments):
        traces.append(1)
        return training.reweighted.update(*arguments)

    counted = dataclasses.replace(training.reweighted, update=update)
    traced = []
    for steps in (4, 6, 12):
        stretched = Rescaled(dataclasses.replace(training, reweighted=counted), steps)
        start = training.initialise(jax.random.key(0))
        batches = stratified_batches(
            training.corpus, seed=(0,), batch_size=4, shares=stretched.shares(eta)
        )
        _, losses = train(stretched.problem, eta, start, batches, steps=steps, segment=4)
        assert losses.shape == (steps,)
        traced.append(len(traces))
    assert traced[0] > 0 and len(set(traced)) == 1


@pytest.mark.parametrize("steps", [3, 6])
def test_windows_begin_where_they_do_as_fractions(training, eta, steps):
    """What forward mode asks for: learning rates at 0, 1/3 and 2/3, shares at 0 and 1/2."""
    problem = as_argument(Rescaled(training, steps).problem)
    found = programs.onsets(problem, eta, jnp.int32(0), jnp.int32(steps))
    rates = [math.ceil(window * steps / 3) for window in range(3)]
    shares = [math.ceil(window * steps / 2) for window in range(2) for _ in range(2)]
    np.testing.assert_array_equal(found, rates + shares)
