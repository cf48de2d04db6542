"""Hypergradients of a model that computes in bfloat16, against those in float32.

What enters the training behind the gradient, as learning rates do, is as exact as the gradient
itself. What enters through the gradient, as the mixture does, meets Adam's g / √v: its derivative
is about 1 / √v, so that the few elements whose second moment all but vanishes outweigh all others,
and these are smaller than the rounding of a gradient in bfloat16. An `eps_root` above that rounding
bounds the derivative.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cells import cells
from recipes import tiny

from metatune.data import heldout_batches, stratified_batches
from metatune.hypergrad import MixFlow, hypergradient
from metatune.inner import prepare
from metatune.recipe import schema

STEPS, BATCH = 12, 16
RECIPE = tiny(
    {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "initializer_range": 0.08,
    },
    data={"sequence_length": 64, "batch_size": BATCH},
    inner={"steps": STEPS, "optimizer": schema.AdamWSpec(learning_rate=0.003)},
    tune=schema.TuneSpec(
        learning_rates=schema.LearningRatesSpec(per="tensor"), mixture=schema.MixtureSpec(windows=2)
    ),
)


@functools.cache
def estimate(optimizer, dtype):
    model = dataclasses.replace(RECIPE.model, dtype=dtype)
    inner = dataclasses.replace(RECIPE.inner, optimizer=optimizer)
    training = prepare(dataclasses.replace(RECIPE, model=model, inner=inner))
    eta = training.initial_eta()
    shares = training.trajectory(eta).mixture
    batches = stratified_batches(training.corpus, seed=(4,), batch_size=BATCH, shares=shares)
    held_out = heldout_batches(
        training.corpus, "validation", seed=(3,), sequences=16, micro_batch=16
    )
    found = hypergradient(
        training.reweighted,
        eta,
        training.initialise(jax.random.key(2)),
        batches,
        held_out,
        steps=STEPS,
        estimator=MixFlow(segment=6),
    )
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(found.state.params))
    return found


def error_and_cosine(optimizer, key):
    narrow, exact = (estimate(optimizer, dtype) for dtype in ("bfloat16", "float32"))
    assert float(narrow.value) == pytest.approx(float(exact.value), rel=1e-3)
    assert float(narrow.value) != float(exact.value)
    got, want = (np.ravel(found.gradient[key]) for found in (narrow, exact))
    norms = [np.linalg.norm(each) for each in (got, want)]
    error, cosine = np.linalg.norm(got - want) / norms[1], got @ want / np.prod(norms)
    print(f"{optimizer}, {key}: error {error:.2%}, cosine {cosine:.5f}")
    return error, cosine


ADAM = schema.AdamWSpec(learning_rate=3e-3)
BOUNDED = dataclasses.replace(ADAM, eps_root=1e-5)
HOLDS = {
    "unbounded, rates": (ADAM, "learning_rates"),
    "rates": (BOUNDED, "learning_rates"),
    "mixture": (BOUNDED, "mixture"),
}


@pytest.mark.parametrize(("optimizer", "key"), cells(HOLDS, {"unbounded, rates"}))
def test_it_is_that_of_float32(optimizer, key):
    error, cosine = error_and_cosine(optimizer, key)
    assert error < 0.05
    assert cosine > 0.99


# That the bound is needed; that it is enough is above.
@pytest.mark.thorough
def test_a_vanishing_second_moment_keeps_the_mixture_from_it():
    assert error_and_cosine(ADAM, "mixture")[0] > 2 * error_and_cosine(BOUNDED, "mixture")[0]
