"""Loss weights of the domains, by window.

Their mean over the domains is one, so that they can't stand in for a learning rate.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from metatune.recipe import schema
from metatune.tunables import class_weights
from metatune.tunables.class_weights import ClassWeights
from metatune.tunables.hyper import Hyper, Setting
from metatune.tunables.simplex import logits_of, shares
from metatune.tunables.windows import window_of


@dataclass(frozen=True)
class LossWeights:
    """`w_t = K softmax(η[window of t])` over K domains.

    Attributes:
        start: weights that the search starts from, in the order of the domains, not normalised.
        windows: how many windows.
        steps: horizon of the inner training.
    """

    start: tuple[float, ...]
    windows: int
    steps: int
    key: str = "loss_weights"

    def initial(self) -> jax.Array:
        """Logits of the starting weights, [windows, domains]; zeros where all are equal."""
        return jnp.tile(logits_of(self.start), (self.windows, 1))

    def apply(self, eta: jax.Array, step: jax.Array, hyper: Hyper) -> Hyper:
        """Sets the weights of this window."""
        logits = eta[window_of(step, self.windows, self.steps)]
        return hyper._replace(loss_weights=len(self.start) * shares(logits))

    def penalty(self, eta: jax.Array) -> jax.Array:
        """None."""
        return jnp.zeros((), eta.dtype)


def build(spec: schema.LossWeights, setting: Setting) -> LossWeights | ClassWeights | None:
    """The tunable of a recipe's `tune.loss_weights`; None for tokens before the data is read.

    Raises:
        RecipeError: as `class_weights.build`.
    """
    if spec.per != "domain":
        return class_weights.build(spec, setting)
    given = spec.initial or {}
    start = tuple(given.get(domain, 1.0) for domain in setting.domains)
    return LossWeights(start, spec.windows, setting.steps)
