"""Loss weights of the domains, by window.

Their mean over the domains is one, so that they can't stand in for a learning rate.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from metatune.recipe import schema
from metatune.tunables.hyper import Hyper, Setting
from metatune.tunables.simplex import shares
from metatune.tunables.windows import window_of


@dataclass(frozen=True)
class LossWeights:
    """`w_t = K softmax(η[window of t])` over K domains.

    Attributes:
        domains: K.
        windows: how many windows.
        steps: horizon of the inner training.
    """

    domains: int
    windows: int
    steps: int
    key: str = "loss_weights"

    def initial(self) -> jax.Array:
        """All weights one: zeros, [windows, domains]."""
        return jnp.zeros((self.windows, self.domains), jnp.float32)

    def apply(self, eta: jax.Array, step: jax.Array, hyper: Hyper) -> Hyper:
        """Sets the weights of this window."""
        logits = eta[window_of(step, self.windows, self.steps)]
        return hyper._replace(loss_weights=self.domains * shares(logits))


def build(spec: schema.LossWeights, setting: Setting) -> LossWeights:
    """The tunable of a recipe's `tune.loss_weights`."""
    return LossWeights(len(setting.domains), spec.windows, setting.steps)
