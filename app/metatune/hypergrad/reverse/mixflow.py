"""MixFlow-MG: exact hypergradients by forward-over-reverse differentiation.

The backward sweep through `θ', υ' = Υ(g, θ, υ, λ)` with `g = ∇_θ L(θ, λ, x)` needs, of the
adjoint ḡ of g, the products `(∂²L/∂θ²)ᵀ ḡ` and `(∂²L/∂λ∂θ)ᵀ ḡ`. The Hessian is symmetric, so both
together are one directional derivative of a gradient, the tangent of `∇_(θ,λ) L` along `(ḡ, 0)`:
forward over reverse, without a second tape.

Source: Kemaev et al., Scalable Meta-Learning via Mixed-Mode Differentiation, ICML 2025, section 3.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from metatune.hypergrad.estimator import Job
from metatune.hypergrad.problem import (
    Hypergradient,
    Problem,
    State,
    inner_gradient,
    inner_update,
    loss_and_gradient,
)
from metatune.hypergrad.reverse.adjoint import Adjoint, SegmentRun
from metatune.hypergrad.reverse.damping import Damping
from metatune.hypergrad.reverse.growth import capped
from metatune.hypergrad.reverse.sweep import sweep
from metatune.hypergrad.segments import Segment, inexact, run_segment
from metatune.hypergrad.shapes import Batch, Eta, Floats, Hyper, Params, Scalar, Step, Tree


def add(left: Tree, right: Tree) -> Tree:
    """Sum of two pytrees of the same structure."""
    return jax.tree.map(jnp.add, left, right)


@dataclass(frozen=True)
class MixFlow:
    """Mixed-mode differentiation of the inner training: reverse, curvature forward over reverse.

    Between two kept states a segment is replayed, which gives back θ_t, υ_t of each of its steps;
    then each step, `g = ∇_θ L(θ, λ_t, x)` and `θ', υ' = Υ(g, θ, υ, λ_t)`, is pulled back:

        ḡ, p, ῡ, q = (∂Υ/∂(g, θ, υ, λ))ᵀ (θ̄', ῡ')
        a, b = d/dε ∇_(θ,λ) L(θ + ε ḡ, λ_t, x) at ε = 0
        θ̄ = p + a,  η̄ = η̄' + (∂λ_t/∂η)ᵀ (q + b)

    so that `a = (∂²L/∂θ²)ᵀ ḡ` and `b = (∂²L/∂λ∂θ)ᵀ ḡ` need no tape of the second order. It begins
    behind the last step with `θ̄ = ∂F/∂θ_T` and ends with the hypergradient η̄ = dF/dη. L is the
    problem's `loss`, Υ its `update`, F its `objective`, λ_t = `hyper_at(eta, t)`; θ and υ are
    `params` and `opt_state` of a state; x is `batches(t)`.

    Bias: none, but for damping and what it is rounded to. Cost: about four inner gradients a step,
    of which saving saves one, whatever the number of meta-parameters. Memory on top of training:
    the kept states, the saved gradients, the states of one segment, and the first-order
    activations of one step.

    >>> import jax.numpy as jnp
    >>> from metatune.hypergrad import MixFlow, Problem, State, hypergradient
    >>> problem = Problem(
    ...     loss=lambda theta, rate, x: (theta - x) ** 2 / 2,
    ...     update=lambda g, state, theta, rate: (theta - rate * g, state),
    ...     objective=lambda theta, x: (theta - x) ** 2 / 2,
    ...     hyper_at=lambda eta, step: jnp.exp(eta),
    ... )
    >>> eta, theta, x = jnp.log(0.1), jnp.array(1.0), jnp.array(0.0)
    >>> found = hypergradient(
    ...     problem, eta, State(theta, ()), lambda step: x, [x], steps=3, estimator=MixFlow()
    ... )
    >>> round(float(found.gradient), 4)  # F = (1 - exp η)⁶ / 2: -3 exp η (1 - exp η)⁵
    -0.1771

    Source: Kemaev et al., Scalable Meta-Learning via Mixed-Mode Differentiation, ICML 2025,
    section 3.

    Attributes:
        segment: inner steps per compiled program and between two kept states.
        mixed_mode: take the curvature by forward over reverse; otherwise by reverse over reverse,
            for comparison: all else is the same.
        save_gradients: keep g_t of the forward sweep, so that the replay is that of the optimizer
            alone: one gradient less of four, for one copy of the parameters per inner step.
        gradient_dtype: what g_t is rounded to, in training as well, so that a replay from saved
            gradients is exact; None leaves it as it is. The derivative takes the rounding for the
            identity (Bengio et al., 2013, straight-through).
        damping: a cap on the adjoint; None for the exact hypergradient.
    """

    segment: int = 16
    mixed_mode: bool = True
    save_gradients: bool = True
    gradient_dtype: Literal["bfloat16"] | None = None
    damping: Damping | None = None

    backward: ClassVar[bool] = True
    draws: ClassVar[bool] = False

    @property
    def saves(self) -> bool:
        """Whether gradients are saved."""
        return self.save_gradients

    @property
    def recomputed_gradients(self) -> int:
        """Those that aren't saved."""
        return 0 if self.save_gradients else 1

    def saving(self) -> "MixFlow":
        """The same with saved gradients."""
        return replace(self, save_gradients=True)

    def estimate(self, job: Job) -> Hypergradient:
        """Exact but for a cap on the adjoint, by two sweeps; raises what `sweep` does."""
        return sweep(self, job)

    def forward(self, problem: Problem, eta: Eta, state: State, segment: Segment) -> SegmentRun:
        """Runs a segment; saves the inner gradients, [length, ...] each, if so asked."""

        def body(state: State, given: PyTree) -> tuple[State, tuple[Scalar, PyTree]]:
            step, batch, _ = given
            loss, grads = inner_gradient(problem, eta, state, batch, step)
            grads = self._rounded(grads)
            after = inner_update(problem, eta, state, widened(grads, state.params), step)
            return after, (loss, grads if self.save_gradients else ())

        state, (losses, saved) = run_segment(body, state, segment)
        return SegmentRun(state, losses, saved)

    def pullback(
        self,
        problem: Problem,
        eta: Eta,
        state: State,
        segment: Segment,
        saved: PyTree,
        adjoint: Adjoint,
        largest: Float[Array, "*M"] | None = None,
    ) -> tuple[Adjoint, Float[Array, "*M"] | None]:
        """Takes the adjoint through a segment, step by step."""
        visited = self._replay(problem, eta, state, segment, saved)

        def body(adjoint: Adjoint, given: PyTree) -> tuple[Adjoint, Float[Array, "*M"] | None]:
            step, batch, (state, grads) = given
            grads = widened(grads, state.params)
            curvature = forward_over_reverse if self.mixed_mode else reverse_over_reverse
            adjoint = pull_step(problem, eta, state, grads, batch, step, adjoint, curvature)
            return (
                (adjoint, None) if largest is None else capped(adjoint, largest, problem.trainings)
            )

        adjoint, logs = run_segment(body, adjoint, segment, inputs=visited, reverse=True)
        return adjoint, None if logs is None else jnp.sum(logs, axis=0)

    def _replay(
        self, problem: Problem, eta: Eta, state: State, segment: Segment, saved: PyTree
    ) -> tuple[State, PyTree]:
        """The state before each step of a segment and its inner gradient, [length, ...] each."""

        def body(state: State, given: PyTree) -> tuple[State, tuple[State, PyTree]]:
            step, batch, grads = given
            if not self.save_gradients:
                _, grads = inner_gradient(problem, eta, state, batch, step)
                grads = self._rounded(grads)
            after = inner_update(problem, eta, state, widened(grads, state.params), step)
            return after, (state, () if self.save_gradients else grads)

        states, grads = run_segment(body, state, segment, inputs=saved)[1]
        # What was saved isn't stacked a second time.
        return states, saved if self.save_gradients else grads

    def _rounded(self, grads: Params) -> Params:
        """Gradients as they are saved."""
        if self.gradient_dtype is None:
            return grads
        kind = jnp.finfo(self.gradient_dtype)
        # XLA may leave out a mere conversion there and back, `reduce_precision` it must obey.
        return jax.tree.map(
            lambda g: jax.lax.reduce_precision(g, kind.nexp, kind.nmant).astype(kind.dtype), grads
        )


def widened(grads: Params, params: Params) -> Params:
    """Gradients in the type of their parameters."""
    return jax.tree.map(lambda g, p: g.astype(p.dtype), grads, params)


def forward_over_reverse(
    problem: Problem, params: Params, hyper: Hyper, batch: Batch, direction: Params
) -> tuple[Params, Hyper]:
    """`(∂²L/∂θ²)ᵀ ḡ` and `(∂²L/∂λ∂θ)ᵀ ḡ` as the tangent of `∇_(θ,λ) L` along `(ḡ, 0)`.

    Source: Kemaev et al., 2025, section 3.
    """

    def gradient(params: Params) -> tuple[Params, Hyper]:
        return loss_and_gradient(problem, params, hyper, batch, wrt=(0, 1))[1]

    _, (curvature, mixed) = jax.jvp(gradient, (params,), (direction,))
    return curvature, mixed


def reverse_over_reverse(
    problem: Problem, params: Params, hyper: Hyper, batch: Batch, direction: Params
) -> tuple[Params, Hyper]:
    """The same products as the pullback of `∇_θ L` along ḡ: the standard way."""

    def gradient(params: Params, hyper: Hyper) -> Params:
        return loss_and_gradient(problem, params, hyper, batch, wrt=(0,))[1][0]

    return jax.vjp(gradient, params, hyper)[1](direction)


def pull_step(
    problem: Problem,
    eta: Eta,
    state: State,
    grads: Params,
    batch: Batch,
    step: Step,
    adjoint: Adjoint,
    curvature: Callable[..., tuple[Params, Hyper]] = forward_over_reverse,
) -> Adjoint:
    """Takes the adjoint from after one inner step to before it.

    Args:
        problem: the training.
        eta: meta-parameters η.
        state: (θ_t, υ_t).
        grads: g_t = ∇_θ L(θ_t, λ_t, x_t).
        batch: x_t.
        step: t.
        adjoint: of (θ_{t+1}, υ_{t+1}), and of η so far.
        curvature: how to take the second derivatives of L.

    Returns:
        The adjoint of (θ_t, υ_t), and of η so far.
    """
    hyper, pull_hyper = jax.vjp(lambda eta: problem.hyper_at(eta, step), eta)
    floats, rebuild = inexact(state.opt_state)

    def update(
        grads: Params, params: Params, floats: Floats, hyper: Hyper
    ) -> tuple[Params, Floats]:
        params, opt_state = problem.update(grads, rebuild(floats), params, hyper)
        return params, inexact(opt_state)[0]

    # Through the optimizer by reverse mode: no activations, only a few passes over θ.
    _, pull_update = jax.vjp(update, grads, state.params, floats, hyper)
    grads_bar, params_bar, opt_bar, hyper_bar = pull_update((adjoint.params, adjoint.opt_state))
    by_params, by_hyper = curvature(problem, state.params, hyper, batch, grads_bar)
    (eta_bar,) = pull_hyper(add(hyper_bar, by_hyper))
    return Adjoint(add(params_bar, by_params), opt_bar, add(adjoint.eta, eta_bar))
