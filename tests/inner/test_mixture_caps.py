"""Caps of the mixture come from the text that there is."""

import dataclasses

import jax.numpy as jnp
import pytest
from recipes import tiny

from metatune.inner import prepare
from metatune.inner.preparing import rescaled
from metatune.recipe import schema
from metatune.recipe.faults import RecipeError


def recipe(**mixture):
    return tiny(
        tune=schema.TuneSpec(mixture=schema.MixtureSpec(**mixture)),
        outer=schema.OuterSpec(steps=1),
    )


def test_a_domain_is_read_no_more_than_so_often():
    training = prepare(recipe(max_epochs=3, production_tokens=8_000_000))
    caps = [3 * len(domain.train) * 16 / 8_000_000 for domain in training.corpus.domains]
    cap = caps[0]
    assert 0.5 < min(caps) < max(caps) < 1
    (tunable,) = training.tunables
    assert tunable.caps == pytest.approx(caps)  # pyright: ignore[reportAttributeAccessIssue]
    far = {"mixture": training.initial_eta()["mixture"] + jnp.asarray([[30.0, 0.0]])}
    shares = training.trajectory(far).mixture
    assert shares[:, 0] == pytest.approx(cap, abs=1e-5)
    # A shorter training is an image of the whole one, capped as that is.
    shorter = rescaled(training, 3)
    assert shorter.trajectory(far).mixture[:, 0] == pytest.approx(cap, abs=1e-5)


def test_the_horizon_is_that_of_the_recipe_where_none_is_named():
    training = prepare(recipe(max_epochs=3))
    (tunable,) = training.tunables
    assert tunable.caps is None  # pyright: ignore[reportAttributeAccessIssue]


def test_caps_that_leave_no_mixture_are_a_fault_of_the_recipe():
    impossible = recipe(max_epochs=1, production_tokens=10**9)
    with pytest.raises(RecipeError, match=r"tune.mixture.max_epochs = 1: caps the shares .*code"):
        prepare(impossible)
    full = dataclasses.replace(impossible.outer, estimator=schema.ForwardSpec())
    with pytest.raises(RecipeError, match="no mixture is left to choose; raise it, lower"):
        prepare(dataclasses.replace(impossible, outer=full))
