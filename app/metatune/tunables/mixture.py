"""The data mixture: shares of the domains, by window."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metatune.artefact.sections import mixture as sections
from metatune.hypergrad.shapes import Scalar, StepLike
from metatune.recipe import schema
from metatune.recipe.faults import Fault, RecipeError
from metatune.tunables import simplex
from metatune.tunables.hyper import Hyper, Setting, Supply, Tunable
from metatune.tunables.nested import Nested, nested
from metatune.tunables.shapes import Slices
from metatune.tunables.used import Used
from metatune.tunables.windows import window_of

PATH = "tune.mixture"
ROOM = 1e-3
"""By which the sum of the caps exceeds one at least, or rounding decides what the shares are."""


@dataclass(frozen=True)
class TunableMixture:
    """`p_t = floor + (1 - K floor) softmax(η[window of t])` over K domains.

    With caps it is `simplex.capped_shares` of η, with groups of domains that of `nested.logits`.

    Attributes:
        start: shares that the search starts from, in the order of the domains.
        windows: how many windows.
        floor: smallest share.
        steps: horizon of the inner training.
        caps: largest share of each domain; None for none that matters.
        nested: groups of domains; None for none.
        prior: shares that a penalty draws towards.
        kl: factor of the mean over windows of `KL(p ‖ prior)`, in nats.
        smoothness: factor of the mean over neighbouring windows of `Σ_d (p_d' - p_d)²`.
    """

    start: tuple[float, ...]
    windows: int
    floor: float
    steps: int
    caps: tuple[float, ...] | None = None
    nested: Nested | None = None
    prior: tuple[float, ...] = ()
    kl: float = 0.0
    smoothness: float = 0.0
    key: str = "mixture"

    def initial(self) -> Float[Array, "{self.windows} coordinates"]:
        """Coordinates of the starting shares, [windows, domains] unless these are in groups."""
        if self.caps is None:
            row = simplex.logits_of(self.start, self.floor)
        else:
            row = simplex.capped_logits_of(self.start, self.floor, self.caps)
        return jnp.tile(self.nested.coordinates(row) if self.nested else row, (self.windows, 1))

    def apply(
        self, eta: Float[Array, "{self.windows} coordinates"], step: StepLike, hyper: Hyper
    ) -> Hyper:
        """Sets the shares of this window."""
        # All windows come first: shares computed step by step may differ by their rounding. The
        # loop keeps XLA from going back to that.
        shares = jax.lax.map(self._shares, eta)
        return hyper._replace(mixture=shares[window_of(step, self.windows, self.steps)])

    def penalty(self, eta: Float[Array, "{self.windows} coordinates"]) -> Scalar:
        """For the distance from the prior, and from window to window."""
        total = jnp.zeros((), eta.dtype)
        if self.kl:
            shares = jax.vmap(self._shares)(eta)
            prior = jnp.asarray(self.prior, eta.dtype)[None, :]
            # A share that has underflowed has no logarithm, and no part in the sum.
            logs = jnp.log(jnp.maximum(shares, jnp.finfo(eta.dtype).tiny) / prior)
            total += self.kl * jnp.mean(jnp.sum(shares * logs, axis=-1))
        if self.smoothness:
            shares = jax.vmap(self._shares)(eta)
            total += self.smoothness * jnp.mean(jnp.sum(jnp.diff(shares, axis=0) ** 2, axis=-1))
        return total

    def _shares(self, row: Float[Array, "coordinates"]) -> Float[Array, "{len(self.start)}"]:
        logits = self.nested.logits(row) if self.nested else row
        if self.caps is None:
            return simplex.shares(logits, self.floor)
        return simplex.capped_shares(logits, self.floor, self.caps)


def build(spec: schema.MixtureSpec, setting: Setting) -> TunableMixture | None:
    """The tunable of a recipe's `tune.mixture`; None for one with caps before the data is read.

    Raises:
        RecipeError: the caps leave no mixture, or none that starts as, or comes to, what is said.
    """
    start = starting_shares(spec, setting.domains)
    prior = start if spec.prior is None else _normalised(spec.prior, setting.domains)
    caps = None
    if spec.max_epochs is not None:
        if setting.supply is None:
            return None
        caps = largest_shares(spec, spec.max_epochs, setting.domains, setting.supply)
        faults = list(_faults(spec, setting, caps, start, prior))
        if faults:
            raise RecipeError("tune", faults)
        caps = None if min(caps) >= 1 else caps
    return TunableMixture(
        start,
        spec.windows,
        spec.floor,
        setting.steps,
        caps,
        nested(spec.groups, setting.domains),
        prior,
        spec.kl,
        spec.smoothness,
    )


def starting_shares(spec: schema.MixtureSpec | None, domains: Sequence[str]) -> tuple[float, ...]:
    """The recipe's own mixture, in the order of its domains: what tuning starts from."""
    if spec is None or spec.initial is None:
        return (1 / len(domains),) * len(domains)
    return _normalised(spec.initial, domains)


def largest_shares(
    spec: schema.MixtureSpec, max_epochs: float, domains: Sequence[str], supply: Supply
) -> tuple[float, ...]:
    """The caps: the share at which a production training reads a domain `max_epochs` times."""
    production = spec.production_tokens or supply.horizon
    given = spec.available_tokens or {}
    return tuple(
        min(1.0, max_epochs * given.get(name, tokens) / production)
        for name, tokens in zip(domains, supply.tokens, strict=True)
    )


def _normalised(weights: schema.Shares, domains: Sequence[str]) -> tuple[float, ...]:
    total = sum(weights.values())
    return tuple(weights[name] / total for name in domains)


def _faults(
    spec: schema.MixtureSpec,
    setting: Setting,
    caps: Sequence[float],
    start: Sequence[float],
    prior: Sequence[float],
) -> Iterator[Fault]:
    """What the caps contradict."""
    if sum(caps) < 1 + ROOM:
        each = ", ".join(f"{n} {cap:.4g}" for n, cap in zip(setting.domains, caps, strict=True))
        problem = f"caps the shares of the domains ({each}): no mixture is left to choose"
        cure = "raise it, lower production_tokens, or give the domains more text"
        yield Fault(f"{PATH}.max_epochs", spec.max_epochs, problem, cure)
        return  # then no share fits
    for name, cap, first, drawn in zip(setting.domains, caps, start, prior, strict=True):
        capped = f"max_epochs caps this domain's share at {cap:.4g}"
        if cap <= spec.floor:
            problem = f"{capped}, at or below tune.mixture.floor for domain {name}"
            yield Fault(
                f"{PATH}.floor", spec.floor, problem, "lower the floor, or raise max_epochs"
            )
        elif first >= cap:
            problem = f"{capped}, but the search starts at {first:.4g}"
            cure = "write an initial share below the cap for each domain, or raise max_epochs"
            yield Fault(f"{PATH}.initial.{name}", first, problem, cure)
        if spec.prior is not None and drawn > cap:
            problem = f"{capped}, but the prior draws it to {drawn:.4g}"
            cure = "lower it in the prior, or raise max_epochs"
            yield Fault(f"{PATH}.prior.{name}", spec.prior[name], problem, cure)


def section(tunables: Sequence[Tunable], eta: Slices, used: Used) -> sections.Mixture | None:
    """The shares that every step used, if they were tuned."""
    if not any(isinstance(each, TunableMixture) for each in tunables):
        return None
    rows = used.trajectory.mixture
    kept, schedule = used.scheduled(rows.T)
    return sections.Mixture(domains=used.domains, weights=rows[kept], **schedule)
