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
    """Lets JAX differentiate the training as it stands.

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
