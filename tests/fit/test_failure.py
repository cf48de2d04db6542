"""Numbers that are none are named, with where they came up."""

import jax.numpy as jnp
import pytest

from metatune.fit.trainers.failure import NotFinite, refuse_not_finite
from metatune.hypergrad import Diagnostics, Hypergradient, State


def estimate(losses, value=1.0, gradient=None):
    gradient = gradient or {"learning_rates": jnp.ones((2, 3)), "mixture": jnp.ones((2, 2))}
    return Hypergradient(
        jnp.float32(value), gradient, State((), ()), Diagnostics(jnp.array(losses))
    )


def test_finite_numbers_pass():
    refuse_not_finite(estimate([2.0, 1.0]), 3)


def test_a_diverged_inner_training():
    with pytest.raises(
        NotFinite,
        match=r"point 3 of the search, inner step 1: the inner loss is nan; "
        r"lower inner\.optimizer\.learning_rate",
    ) as found:
        refuse_not_finite(estimate([2.0, float("nan"), float("inf")]), 3, seed=5)
    assert found.value.line(4, {"learning_rates": 2, "mixture": 4}) == {
        "why": "point 3 of the search, inner step 1: the inner loss is nan",
        "training": "hypergradient",
        "seed": 5,
        "inner_step": 1,
        "inner_steps": 4,
        "window": {"learning_rates": 0, "mixture": 1},
    }


def test_steps_are_those_of_the_training_where_an_estimate_begins_later():
    with pytest.raises(NotFinite, match="inner step 9: the inner loss is nan") as found:
        refuse_not_finite(estimate([2.0, float("nan")]), 3, start=8)
    assert found.value.inner_step == 9


def test_a_diverged_last_step():
    with pytest.raises(NotFinite, match="held-out objective after the last inner step is inf"):
        refuse_not_finite(estimate([2.0, 1.0], value=float("inf")), 3)


def test_a_hypergradient_that_is_none_names_its_tunable():
    gradient = {"learning_rates": jnp.ones(2), "mixture": jnp.array([1.0, float("nan")])}
    with pytest.raises(NotFinite, match=r"hypergradient of mixture is not finite.*eps_root"):
        refuse_not_finite(estimate([1.0], gradient=gradient), 0)


def test_a_hypergradient_without_a_sound_pair_says_so():
    found = estimate([1.0], gradient={"mixture": jnp.full(2, jnp.nan)})
    seen = found.diagnostics._replace(lost_directions=3, diverged_sides=6)
    with pytest.raises(
        NotFinite,
        match=r"point 2 of the search: the hypergradient of mixture is not finite, as 6 trainings "
        r"on either side .* left 3 directions without a derivative; lower outer\.estimator\.step",
    ):
        refuse_not_finite(found._replace(diagnostics=seen), 2)
