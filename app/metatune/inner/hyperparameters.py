"""The hyperparameters of every inner step: the map from η to λ_t, and all λ_t by name."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from metatune.hypergrad.shapes import Shapes, StepLike
from metatune.inner import schedules
from metatune.recipe import schema
from metatune.recipe.schema import Recipe
from metatune.tunables import Hyper, Tunable, scheduled
from metatune.tunables.mixture import starting_shares
from metatune.tunables.shapes import Names, Slices

HyperAt = Callable[[Slices, StepLike], Hyper]
"""The map η ↦ λ_t."""


def over_steps_of(
    recipe: Recipe, names: Names, params: Shapes, tuning: tuple[Tunable, ...]
) -> Callable[..., Hyper]:
    """See `InnerTraining.hyper_over`."""
    # Rates within parameters would be as large as the parameters, for every step.
    hyper_at = hyper_at_of(recipe, names, params, tuple(filter(scheduled, tuning)))

    @jax.jit
    def over_steps(eta: Slices, steps: Int[Array, "steps"] | None = None) -> Hyper:
        steps = jnp.arange(recipe.inner.steps) if steps is None else steps
        return jax.vmap(hyper_at, in_axes=(None, 0))(eta, steps)

    return over_steps


def hyper_at_of(
    recipe: Recipe, names: Names, params: Shapes, tuning: tuple[Tunable, ...]
) -> HyperAt:
    """The map η ↦ λ_t: the recipe's own choices, then each tunable in turn.

    `names` and `params` are those of the parameters, or their shapes.
    """
    inner = recipe.inner
    base_rates = schedules.base_rates_of(inner.optimizer, names, inner.steps)
    shares = np.asarray(starting_shares(recipe.tune.mixture, recipe.data.trained))
    # A term of zero isn't computed.
    terms = {
        key: value
        for key, value in (inner.loss or schema.LossSpec()).coefficients().items()
        if value
    }
    # A rate has its parameter's rank, so that nothing is broadcast by accident.
    ranks = jax.tree.map(lambda leaf: (1,) * leaf.ndim, params)

    def hyper_at(eta: Slices, step: StepLike) -> Hyper:
        bases = [jnp.asarray(rates)[step] for rates in base_rates.rates]
        hyper = Hyper(
            jax.tree.map(lambda at, rank: bases[at].reshape(rank), base_rates.places, ranks),
            jnp.asarray(shares),
            jnp.ones(len(shares)),
            loss_terms={key: jnp.float32(value) for key, value in terms.items()} or None,
        )
        for tunable in tuning:
            hyper = tunable.apply(eta[tunable.key], step, hyper)
        return hyper

    return hyper_at
