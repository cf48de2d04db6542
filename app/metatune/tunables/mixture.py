"""The data mixture: shares of the domains, by window."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from metatune.recipe import schema
from metatune.tunables import simplex
from metatune.tunables.hyper import Hyper, Setting
from metatune.tunables.windows import window_of


@dataclass(frozen=True)
class Mixture:
    """`p_t = floor + (1 - K floor) softmax(η[window of t])` over K domains.

    Attributes:
        start: shares that the search starts from, in the order of the domains.
        windows: how many windows.
        floor: smallest share.
        steps: horizon of the inner training.
    """

    start: tuple[float, ...]
    windows: int
    floor: float
    steps: int
    key: str = "mixture"

    def initial(self) -> jax.Array:
        """Logits of the starting shares, [windows, domains]."""
        return jnp.tile(simplex.logits_of(self.start, self.floor), (self.windows, 1))

    def apply(self, eta: jax.Array, step: jax.Array, hyper: Hyper) -> Hyper:
        """Sets the shares of this window."""
        logits = eta[window_of(step, self.windows, self.steps)]
        return hyper._replace(mixture=simplex.shares(logits, self.floor))

    def penalty(self, eta: jax.Array) -> jax.Array:
        """None."""
        return jnp.zeros((), eta.dtype)


def build(spec: schema.Mixture, setting: Setting) -> Mixture:
    """The tunable of a recipe's `tune.mixture`."""
    start = starting_shares(spec, setting.domains)
    return Mixture(start, spec.windows, spec.floor, setting.steps)


def starting_shares(spec: schema.Mixture | None, domains: Sequence[str]) -> tuple[float, ...]:
    """The recipe's own mixture, in the order of its domains: what tuning starts from."""
    if spec is None or spec.initial is None:
        return (1 / len(domains),) * len(domains)
    total = sum(spec.initial.values())
    return tuple(spec.initial[name] / total for name in domains)
