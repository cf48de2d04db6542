"""What can be tuned. Each tunable owns a slice of η and its effect on the hyperparameters λ_t.

A new tunable is a file here, a field of `metatune.recipe.schema.Tune`, and a row in `BUILDERS`.
"""

from collections.abc import Callable, Mapping
from typing import Any

from metatune.recipe.faults import RecipeError
from metatune.recipe.schema import Recipe
from metatune.tunables import learning_rates, loss_weights, mixture
from metatune.tunables.hyper import Hyper, Tunable
from metatune.tunables.learning_rates import LearningRates
from metatune.tunables.loss_weights import LossWeights
from metatune.tunables.mixture import Mixture

__all__ = ["Hyper", "LearningRates", "LossWeights", "Mixture", "Tunable", "build"]

BUILDERS: Mapping[str, Callable[[Recipe, Mapping[str, Any]], Tunable]] = {
    "learning_rates": learning_rates.build,
    "mixture": mixture.build,
    "loss_weights": loss_weights.build,
}


def build(recipe: Recipe, names: Mapping[str, Any]) -> tuple[Tunable, ...]:
    """The tunables of a recipe.

    Args:
        recipe: what to tune.
        names: checkpoint names of the model's parameters, `ParameterNames` at the leaves.

    Raises:
        RecipeError: with the faults of all tunables together.
    """
    built, faults = [], []
    for key, builder in BUILDERS.items():
        if getattr(recipe.tune, key) is None:
            continue
        try:
            built.append(builder(recipe, names))
        except RecipeError as error:
            faults += error.faults
    if faults:
        raise RecipeError("tune", faults)
    return tuple(built)
