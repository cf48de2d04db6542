"""Reverse-over-reverse through the unrolled steps: the standard way, and the oracle."""

from dataclasses import dataclass
from typing import ClassVar

import jax
from jaxtyping import Array, Float, PyTree

from metatune.hypergrad.estimator import Job
from metatune.hypergrad.problem import Hypergradient, Problem, State
from metatune.hypergrad.reverse.adjoint import Adjoint, SegmentRun
from metatune.hypergrad.reverse.damping import Damping
from metatune.hypergrad.reverse.mixflow import MixFlow
from metatune.hypergrad.reverse.sweep import sweep
from metatune.hypergrad.segments import Segment, advance, inexact
from metatune.hypergrad.shapes import Eta, Floats, Params


@dataclass(frozen=True)
class Reverse:
    """Reverse-mode differentiation by JAX of the training as it stands.

    A segment from step t to u is a function of what comes in, and is pulled back as a whole:

        (θ_u, υ_u) = S(η, θ_t, υ_t)
        (Δη̄, θ̄_t, ῡ_t) = (∂S/∂(η, θ, υ))ᵀ (θ̄_u, ῡ_u),  η̄ ← η̄ + Δη̄

    from `θ̄_T = ∂F/∂θ_T` behind the last step to η̄ = dF/dη. F is the problem's `objective`, θ and υ
    are `params` and `opt_state` of a state, and S is `segment` inner steps of its `loss`, `update`
    and `hyper_at`. The gradient within a step is differentiated reverse over reverse.

    Bias: none, but for damping. Cost: about four inner gradients a step, with `remat` five,
    whatever the number of meta-parameters. Memory on top of training: the kept states, and of one
    segment the second-order activations of each step, with `remat` of one.

    >>> import jax.numpy as jnp
    >>> from metatune.hypergrad import Reverse, Problem, State, hypergradient
    >>> problem = Problem(
    ...     loss=lambda theta, rate, x: (theta - x) ** 2 / 2,
    ...     update=lambda g, state, theta, rate: (theta - rate * g, state),
    ...     objective=lambda theta, x: (theta - x) ** 2 / 2,
    ...     hyper_at=lambda eta, step: jnp.exp(eta),
    ... )
    >>> eta, theta, x = jnp.log(0.1), jnp.array(1.0), jnp.array(0.0)
    >>> found = hypergradient(
    ...     problem, eta, State(theta, ()), lambda step: x, [x], steps=3, estimator=Reverse()
    ... )
    >>> round(float(found.gradient), 4)  # F = (1 - exp η)⁶ / 2: -3 exp η (1 - exp η)⁵
    -0.1771

    Source: Maclaurin, Duvenaud & Adams, Gradient-based Hyperparameter Optimization through
    Reversible Learning, ICML 2015, section 2 (there the states come of running time backwards).

    Attributes:
        segment: inner steps per compiled program and between two kept states.
        remat: recompute each inner step in the backward sweep instead of keeping what it computed.
        damping: a cap on the adjoint, after each segment; None for the exact hypergradient.
    """

    segment: int = 16
    remat: bool = True
    damping: Damping | None = None

    def __post_init__(self) -> None:
        """Refuses a cap within segments, which are differentiated as a whole.

        Raises:
            ValueError: there is one.
        """
        if self.damping is not None and self.damping.every != "segment":
            raise ValueError(
                f"damping.every = {self.damping.every!r}: reverse differentiates a segment as a "
                "whole; give 'segment', or take mixflow"
            )

    backward: ClassVar[bool] = True
    draws: ClassVar[bool] = False

    @property
    def saves(self) -> bool:
        """Nothing."""
        return False

    @property
    def recomputed_gradients(self) -> int:
        """One, and with `remat` one more."""
        return 1 + self.remat

    def saving(self) -> MixFlow:
        """MixFlow: what JAX keeps of the steps isn't told apart."""
        return MixFlow(self.segment)

    def estimate(self, job: Job) -> Hypergradient:
        """Exact but for a cap on the adjoint, by two sweeps; raises what `sweep` does."""
        return sweep(self, job)

    def forward(self, problem: Problem, eta: Eta, state: State, segment: Segment) -> SegmentRun:
        """Runs a segment; saves nothing."""
        state, losses = advance(problem, eta, state, segment, remat=self.remat)
        return SegmentRun(state, losses, saved=())

    def pullback(
        self,
        problem: Problem,
        eta: Eta,
        state: State,
        segment: Segment,
        saved: PyTree,
        adjoint: Adjoint,
        largest: Float[Array, "*M"] | None = None,
    ) -> tuple[Adjoint, None]:
        """Takes the adjoint through a segment by `jax.vjp` of the whole of it."""
        del saved, largest
        floats, rebuild = inexact(state.opt_state)

        def run(eta: Eta, params: Params, floats: Floats) -> tuple[Params, Floats]:
            end = self.forward(problem, eta, State(params, rebuild(floats)), segment).state
            return end.params, inexact(end.opt_state)[0]

        _, pull = jax.vjp(run, eta, state.params, floats)
        eta_bar, params_bar, opt_bar = pull((adjoint.params, adjoint.opt_state))
        return Adjoint(params_bar, opt_bar, jax.tree.map(jax.numpy.add, adjoint.eta, eta_bar)), None
