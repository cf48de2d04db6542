"""FDS: exact hypergradients by forward-mode differentiation, over windows that share a value.

The tangents of the state along each coordinate of η travel with the training: memory doesn't grow
with its length, but with the number of meta-parameters N. A coordinate costs nothing before the
first step that it acts in.

Source: Micaelli & Storkey, Gradient-based Hyperparameter Optimization Over Long Horizons, NeurIPS
2021.
"""

from bisect import bisect_right
from dataclasses import dataclass
from typing import ClassVar, Final

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.flatten_util import ravel_pytree
from jaxtyping import Integer

from metatune.hypergrad import programs
from metatune.hypergrad.estimator import Job, refuse_not_positive
from metatune.hypergrad.forward.push import Push, explain_custom_vjp
from metatune.hypergrad.problem import Diagnostics, Hypergradient

MOST_ONSETS: Final = 16


@dataclass(frozen=True)
class Forward:
    """Forward-mode differentiation along every coordinate of η.

        Z_{t+1} = A_t Z_t + B_t,  Z_0 = 0
        dF/dη = (∂F/∂θ_T) Z_T

    Z_t = d(θ_t, υ_t)/dη has a column for each of the N coordinates of `eta`, A_t and B_t are the
    derivatives of an inner step in the state (`params` and `opt_state`) and in η; no matrix is
    formed but Z_t. Step, F and λ_t = `hyper_at(eta, t)` are those of the problem. Where λ_t is
    shared over windows, the columns of a window are zero before it begins, and aren't computed.

    Bias: none unless tangents are clipped. Cost: 1 + 2N inner gradients a step, about half for
    windows. Memory on top of training: N states, flat in the number of steps.

    When a coordinate first acts is found out before the training, from the derivatives with respect
    to η of λ_t in each step, and of the state that the steps begin with; under `jax.jit`, where
    values aren't known, all act from the start. A program is compiled for each number of
    coordinates that act, at most 16 numbers: of more onsets, neighbours begin together, with the
    first of them.

    >>> import jax.numpy as jnp
    >>> from metatune.hypergrad import Forward, Problem, State, hypergradient
    >>> problem = Problem(
    ...     loss=lambda theta, rate, x: (theta - x) ** 2 / 2,
    ...     update=lambda g, state, theta, rate: (theta - rate * g, state),
    ...     objective=lambda theta, x: (theta - x) ** 2 / 2,
    ...     hyper_at=lambda eta, step: jnp.exp(eta),
    ... )
    >>> eta, theta, x = jnp.log(0.1), jnp.array(1.0), jnp.array(0.0)
    >>> found = hypergradient(
    ...     problem, eta, State(theta, ()), lambda step: x, [x], steps=3, estimator=Forward()
    ... )
    >>> round(float(found.gradient), 4)  # F = (1 - exp η)⁶ / 2: -3 exp η (1 - exp η)⁵
    -0.1771

    Source: Micaelli & Storkey, Gradient-based Hyperparameter Optimization Over Long Horizons,
    NeurIPS 2021, section 3.

    Attributes:
        segment: inner steps per compiled program.
        chunk: coordinates at a time, each chunk through a training of its own; None for all.
        clip_tangents: largest global norm of a tangent of an inner gradient, `H Z + ∂²L/∂λ∂θ`,
            along each coordinate; None, for no clipping, is exact.
        budget_bytes: what the tangents may take; None for what is free on the device.
    """

    segment: int = 16
    chunk: int | None = None
    clip_tangents: float | None = None
    budget_bytes: int | None = None
    backward: ClassVar[bool] = False
    draws: ClassVar[bool] = False

    def __post_init__(self):
        """Refuses what can't be meant."""
        refuse_not_positive(
            segment=self.segment,
            chunk=self.chunk,
            clip_tangents=self.clip_tangents,
            budget_bytes=self.budget_bytes,
        )

    @property
    def push(self) -> Push:
        """How its directions are pushed."""
        return Push(self.segment, self.chunk, self.clip_tangents, self.budget_bytes)

    def onsets(self, job: Job) -> Integer[np.ndarray, "N"]:
        """The inner step that each coordinate of η is pushed from; the last for none.

        Raises:
            EstimatorError: what `Push` can't do.
        """
        found = first_steps(job)
        self.push.refuse(job, np.sort(found).tolist())
        return found

    def estimate(self, job: Job) -> Hypergradient:
        """Exact, unless tangents are clipped.

        Raises:
            EstimatorError: what `Push` can't do.
        """
        flat, unflatten = ravel_pytree(job.eta)
        onsets = self.onsets(job)
        order = np.argsort(onsets, kind="stable")
        basis = jnp.eye(len(flat), dtype=flat.dtype)[order]
        pushed = self.push(job, basis, onsets[order].tolist())
        gradient = unflatten(pushed.derivatives[np.argsort(order)])
        diagnostics = Diagnostics(pushed.losses, growth=pushed.growth)
        return Hypergradient(pushed.value, gradient, pushed.state, diagnostics)


def first_steps(job: Job) -> Integer[np.ndarray, "N"]:
    """The inner step that each coordinate of η is pushed from; the last for none."""
    with explain_custom_vjp():
        found = programs.onsets(job.problem, job.eta, np.int32(job.first), np.int32(job.stop))
    if isinstance(found, Tracer):
        return np.full(found.shape, job.first)
    found = np.asarray(found)
    if job.start_counts:
        moved = programs.start_moves(job.problem, job.eta, job.state)
        found = np.where(np.asarray(moved), job.first, found)
    distinct = sorted({int(at) for at in found if at < job.stop})
    every = -(-len(distinct) // MOST_ONSETS)
    edges = [*distinct[::every], job.stop] if distinct else [job.stop]
    return np.array([edges[bisect_right(edges, at) - 1] for at in found])
