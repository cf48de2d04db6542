"""(FG)²U: unbiased hypergradients from forward-mode derivatives along random directions.

Memory grows neither with the length of the training nor with the number of meta-parameters.

Source: Shen et al., Memory-Efficient Gradient Unrolling for Large-Scale Bi-level Optimization,
NeurIPS 2024.
"""

from dataclasses import dataclass
from math import sqrt
from typing import ClassVar

import numpy as np
from jaxtyping import Integer

from metatune.hypergrad.estimator import Job, refuse_not_positive
from metatune.hypergrad.forward.directions import (
    Distribution,
    draw,
    mean,
    next_control,
    refuse_unknown,
)
from metatune.hypergrad.forward.push import Push
from metatune.hypergrad.problem import Diagnostics, Hypergradient


@dataclass(frozen=True)
class ForwardGradient:
    """The mean of (dF·v) v over random directions v, each by forward mode.

        g = 1/b Σ_i (dF·v_i) v_i,  dF·v = (∂F/∂θ_T) z_T
        z_{t+1} = A_t z_t + B_t v,  z_0 = 0

    v_1 to v_b are `directions` in the N coordinates of η, with E[v vᵀ] = I, of a `distribution`;
    z_t is the derivative of the state along one of them, A_t and B_t those of an inner step in the
    state and in η. Needs the `key` of `hypergradient`, and takes its `control` c for a control
    variate: (dF·v - c·v) v + c. Directions are spread over as many devices as divide them.

    Bias: none. Its relative variance is (N - 1)/b for Rademacher directions, (N + 1)/b for Gaussian
    ones, N/b - 1 for orthogonal ones. Cost: 1 + 2b inner gradients a step. Memory on top of
    training: b states, flat in the number of steps and in N.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> from metatune.hypergrad import ForwardGradient, Problem, State, hypergradient
    >>> problem = Problem(
    ...     loss=lambda theta, rate, x: (theta - x) ** 2 / 2,
    ...     update=lambda g, state, theta, rate: (theta - rate * g, state),
    ...     objective=lambda theta, x: (theta - x) ** 2 / 2,
    ...     hyper_at=lambda eta, step: jnp.exp(eta),
    ... )
    >>> eta, theta, x = jnp.log(0.1), jnp.array(1.0), jnp.array(0.0)
    >>> found = hypergradient(
    ...     problem, eta, State(theta, ()), lambda step: x, [x], steps=3,
    ...     estimator=ForwardGradient(directions=2), key=jax.random.key(0)
    ... )
    >>> round(float(found.gradient), 4)  # F = (1 - exp η)⁶ / 2: -3 exp η (1 - exp η)⁵
    -0.1771

    Source: Shen et al., Memory-Efficient Gradient Unrolling for Large-Scale Bi-level Optimization,
    NeurIPS 2024, section 3.1.

    Attributes:
        directions: how many, b.
        segment: inner steps per compiled program.
        distribution: `rademacher` or `gaussian`, independent, or `orthogonal`, which has the least
            error, by a factor of √((N-b)/(N-1)) less than Rademacher's: b at most N. There are no
            antithetic ones: (dF·-v) -v is (dF·v) v again.
        chunk: directions at a time, each chunk through a training of its own; None for all.
        budget_bytes: what the tangents may take; None for what is free on the device.
    """

    directions: int
    segment: int = 16
    distribution: Distribution = "rademacher"
    chunk: int | None = None
    budget_bytes: int | None = None
    backward: ClassVar[bool] = False
    draws: ClassVar[bool] = True

    def __post_init__(self):
        """Refuses what can't be meant."""
        refuse_unknown(self.distribution)
        refuse_not_positive(
            directions=self.directions,
            segment=self.segment,
            chunk=self.chunk,
            budget_bytes=self.budget_bytes,
        )

    @property
    def push(self) -> Push:
        """How its directions are pushed."""
        return Push(self.segment, self.chunk, clip=None, budget_bytes=self.budget_bytes)

    def onsets(self, job: Job) -> Integer[np.ndarray, "{self.directions}"]:
        """The inner step that each direction is pushed from: the first.

        Raises:
            EstimatorError: what `Push` can't do.
        """
        found = np.full(self.directions, job.first)
        self.push.refuse(job, found.tolist())
        return found

    def estimate(self, job: Job) -> Hypergradient:
        """Unbiased; its standard errors are in the diagnostics.

        Raises:
            EstimatorError: no key, too many orthogonal directions, and what `Push` can't do.
        """
        onsets = self.onsets(job)
        directions = draw(job.key, job.eta, self.directions, self.distribution)
        pushed = self.push(job, directions, onsets.tolist())
        gradient, errors = mean(
            job.eta, pushed.derivatives, directions, self.distribution, job.control
        )
        control = None
        if job.control is not None:
            control = next_control(job.control, gradient, self.distribution, self.directions)
        # With E[v vᵀ] = I the mean square along directions is that of all coordinates together.
        growth = pushed.growth._replace(
            params=pushed.growth.params / sqrt(self.directions),
            opt_state=pushed.growth.opt_state / sqrt(self.directions),
        )
        diagnostics = Diagnostics(
            pushed.losses, standard_errors=errors, control=control, growth=growth
        )
        return Hypergradient(pushed.value, gradient, pushed.state, diagnostics)
