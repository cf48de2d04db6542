"""Learning rates: multipliers of the base schedule, by group and window, in log space."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from metatune.recipe import schema
from metatune.tunables.groups import Groups, group
from metatune.tunables.hyper import Hyper, Setting
from metatune.tunables.windows import window_of


@dataclass(frozen=True, eq=False)
class LearningRates:
    """`rate_t(parameter) = base_t * exp(η[window of t, group of the parameter])`.

    Attributes:
        groups: which parameters share a rate.
        windows: how many windows.
        steps: horizon of the inner training.
    """

    groups: Groups
    windows: int
    steps: int
    key: str = "learning_rates"

    def initial(self) -> jax.Array:
        """All multipliers one: zeros, [windows, groups]."""
        return jnp.zeros((self.windows, len(self.groups.labels)), jnp.float32)

    def apply(self, eta: jax.Array, step: jax.Array, hyper: Hyper) -> Hyper:
        """Multiplies each parameter's rate by its group's multiplier in this window."""
        logs = eta[window_of(step, self.windows, self.steps)]
        # Parameters of no group have index -1: the last entry, which leaves the base rate.
        multipliers = jnp.exp(jnp.append(logs, 0.0))

        def scale(rate: jax.Array, index: np.ndarray) -> jax.Array:
            chosen = multipliers[index]
            return rate * chosen.reshape(chosen.shape + (1,) * (rate.ndim - chosen.ndim))

        return hyper._replace(
            learning_rate=jax.tree.map(scale, hyper.learning_rate, self.groups.index)
        )

    def penalty(self, eta: jax.Array) -> jax.Array:
        """None."""
        return jnp.zeros((), eta.dtype)

    def multipliers(self, eta: np.ndarray) -> np.ndarray:
        """The multipliers, [windows, groups] float64."""
        return np.exp(np.asarray(eta, np.float64))


def build(spec: schema.LearningRates, setting: Setting) -> LearningRates:
    """The tunable of a recipe's `tune.learning_rates`.

    Raises:
        RecipeError: a regular expression matches no parameter.
    """
    groups = group(setting.names, spec.per, "tune.learning_rates.per")
    return LearningRates(groups, spec.windows, setting.steps)
