"""A network that rates the sequences of each training batch, for the whole training.

Source: Calian et al., DataRater: Meta-Learned Dataset Curation, 2025, arXiv 2505.17895, whose rater
weighs a batch by the softmax of its scores, too.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key

from metatune.artefact.sections import rater as sections
from metatune.hypergrad.shapes import Scalar, StepLike
from metatune.recipe import schema
from metatune.tunables.hyper import Hyper, Setting, Tunable
from metatune.tunables.rating import Rating
from metatune.tunables.shapes import Slices
from metatune.tunables.used import Used


@dataclass(frozen=True, eq=False)
class TunableRater:
    """The numbers of the network, all in one array.

    Attributes:
        rating: the network, and what its scores do.
        random: key of the numbers that the search starts from.
    """

    rating: Rating
    random: Key[Array, ""]
    key: str = "rater"
    windows: int = 1

    def initial(self) -> Float[Array, "numbers"]:
        """Random numbers but for the last layer, which is zero: every weight is one."""
        return ravel_pytree(jax.jit(self.rating.init)(self.random))[0]

    def apply(self, eta: Float[Array, "numbers"], step: StepLike, hyper: Hyper) -> Hyper:
        """Sets the weights of sequences."""
        del step
        params = self.rating.unravelled(eta)
        return hyper._replace(rater=jax.tree_util.Partial(self.rating.weights, params))

    def penalty(self, eta: Float[Array, "numbers"]) -> Scalar:
        """None."""
        return jnp.zeros((), eta.dtype)


def build(spec: schema.RaterSpec, setting: Setting) -> TunableRater:
    """The tunable of a recipe's `tune.rater`."""
    if setting.vocab_size is None or setting.key is None:
        raise ValueError("a rater needs to know the vocabulary, and a key for its numbers")
    return TunableRater(Rating(spec, setting.vocab_size), setting.key)


def section(tunables: Sequence[Tunable], eta: Slices, used: Used) -> sections.Rater | None:
    """The network, if one was tuned."""
    tuned = next((each for each in tunables if isinstance(each, TunableRater)), None)
    if tuned is None:
        return None
    rating = tuned.rating
    settings = {
        **asdict(rating.spec),
        "vocab_size": rating.vocab_size,
        "sequence_length": used.sequence_length,
    }
    return sections.Rater(settings, rating.by_name(rating.unravelled(eta[tuned.key])))
