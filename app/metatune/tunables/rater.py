"""A network that rates the sequences of each training batch, for the whole training.

Source: Calian et al., DataRater: Meta-Learned Dataset Curation, 2025, arXiv 2505.17895, whose rater
weighs a batch by the softmax of its scores, too.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from metatune.recipe import schema
from metatune.tunables.hyper import Hyper, Setting
from metatune.tunables.rating import Rating


@dataclass(frozen=True, eq=False)
class Rater:
    """The numbers of the network, all in one array.

    Attributes:
        rating: the network, and what its scores do.
        random: key of the numbers that the search starts from.
    """

    rating: Rating
    random: jax.Array
    key: str = "rater"
    windows: int = 1

    def initial(self) -> jax.Array:
        """Random numbers but for the last layer, which is zero: every weight is one."""
        return ravel_pytree(jax.jit(self.rating.init)(self.random))[0]

    def apply(self, eta: jax.Array, step: jax.Array, hyper: Hyper) -> Hyper:
        """Sets the weights of sequences."""
        del step
        params = self.rating.unravelled(eta)
        return hyper._replace(rater=jax.tree_util.Partial(self.rating.weights, params))

    def penalty(self, eta: jax.Array) -> jax.Array:
        """None."""
        return jnp.zeros((), eta.dtype)


def build(spec: schema.Rater, setting: Setting) -> Rater:
    """The tunable of a recipe's `tune.rater`."""
    if setting.vocab_size is None or setting.key is None:
        raise ValueError("a rater needs to know the vocabulary, and a key for its numbers")
    return Rater(Rating(spec, setting.vocab_size), setting.key)
