"""Zeroth order: central differences of whole trainings along random directions.

For objectives that can't be differentiated, such as accuracy: only their values are asked for. The
trainings on either side of η share their data and their start, so that what is common to both
cancels. Of a pair with one side that diverged `pairs` says what is made; one with two says nothing.

Source: Spall, Multivariate Stochastic Approximation Using a Simultaneous Perturbation Gradient
Approximation, 1992, eq. 2.2.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from metatune.hypergrad import programs
from metatune.hypergrad.estimator import EstimatorError, Job, refuse_not_positive
from metatune.hypergrad.forward.directions import Distribution, draw, mean, refuse_unknown
from metatune.hypergrad.forward.pairs import compared
from metatune.hypergrad.forward.push import refuse_checkpoints
from metatune.hypergrad.problem import Diagnostics, Hypergradient, State
from metatune.hypergrad.segments import fetch
from metatune.hypergrad.shapes import Eta, Scalar


@dataclass(frozen=True)
class ZerothOrder:
    """Central differences of the objective along random directions v.

        g = 1/b Σ_i (F(η + μ v_i) - F(η - μ v_i)) / 2μ · v_i

    v_1 to v_b are `directions` in the N coordinates of η, with E[v vᵀ] = I, of a `distribution`; μ
    is `step`; F(η) is the objective after a whole training, whose start and data all share. Needs
    the `key` of `hypergradient`.

    Bias: O(μ²), and where F has steps, what they come to. Cost: 2b trainings besides the one at η.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> from metatune.hypergrad import ZerothOrder, Problem, State, hypergradient
    >>> problem = Problem(
    ...     loss=lambda theta, rate, x: (theta - x) ** 2 / 2,
    ...     update=lambda g, state, theta, rate: (theta - rate * g, state),
    ...     objective=lambda theta, x: (theta - x) ** 2 / 2,
    ...     hyper_at=lambda eta, step: jnp.exp(eta),
    ... )
    >>> eta, theta, x = jnp.log(0.1), jnp.array(1.0), jnp.array(0.0)
    >>> found = hypergradient(
    ...     problem, eta, State(theta, ()), lambda step: x, [x], steps=3,
    ...     estimator=ZerothOrder(directions=2), key=jax.random.key(0)
    ... )
    >>> round(float(found.gradient), 3)  # F = (1 - exp η)⁶ / 2: -3 exp η (1 - exp η)⁵
    -0.177

    Source: Spall, Multivariate Stochastic Approximation Using a Simultaneous Perturbation Gradient
    Approximation, 1992, eq. 2.2.

    Attributes:
        directions: how many, b.
        step: μ, in the unconstrained coordinates of η: small enough for the curvature, large enough
            for the rounding of the objective, or, where it has steps, to cross them.
        segment: inner steps per compiled program.
        distribution: `rademacher`, `gaussian` or `orthogonal`, as of `ForwardGradient`.
        chunk: directions at a time; the memory is that of twice as many trainings.
    """

    directions: int
    step: float = 1e-3
    segment: int = 16
    distribution: Distribution = "rademacher"
    chunk: int = 1
    backward: ClassVar[bool] = False
    draws: ClassVar[bool] = True

    def __post_init__(self):
        """Refuses what can't be meant."""
        refuse_unknown(self.distribution)
        refuse_not_positive(
            directions=self.directions,
            step=self.step,
            segment=self.segment,
            chunk=self.chunk,
        )

    def estimate(self, job: Job) -> Hypergradient:
        """Nearly unbiased; its standard errors are in the diagnostics.

        Not a number where both sides of every pair diverged.

        Raises:
            EstimatorError: no key, too many orthogonal directions, checkpoints or a carry.
        """
        refuse_checkpoints(job)
        if job.carry is not None:
            raise EstimatorError("ZerothOrder can't go on from a carry: leave it out")
        directions = draw(job.key, job.eta, self.directions, self.distribution)
        chunks = -(-self.directions // self.chunk)
        trainings = Trainings(job, self.segment, chunks, alone=job.steps)
        base, before, early = trainings.before()
        state, after, late = trainings.run(
            programs.advance, job.value, job.eta, _copied(base), job.first, job.stop
        )
        values = []
        for at in range(0, self.directions, self.chunk):
            along = directions[at : at + self.chunk]
            begun = trainings.begun(base, along, self.step)
            values.append(trainings.sides(begun, along, self.step)[2])
        pairs = compared(jnp.concatenate(values), late[None])
        derivatives = (pairs.differences / (2 * self.step)).astype(directions.dtype)
        gradient, errors = mean(
            job.eta, derivatives, directions, self.distribution, kept=pairs.kept
        )
        diagnostics = Diagnostics(
            jnp.concatenate([*before, *after]),
            standard_errors=errors,
            lost_directions=jnp.sum(~pairs.kept),
            diverged_sides=pairs.diverged,
        )
        return Hypergradient(early + late, gradient, state, diagnostics)


class Trainings:
    """Trainings of a job at η, and in pairs around it: at η + μv, and at η - μv."""

    def __init__(self, job: Job, segment: int, chunks: int, alone: int):
        """Prepares.

        Args:
            job: the training and its objective.
            segment: inner steps per compiled program.
            chunks: how often pairs are trained, each time several side by side.
            alone: inner steps at η.
        """
        self.job, self.segment = job, segment
        self.done, self.total = 0, alone + chunks * (job.stop - job.first)

    def before(self) -> tuple[State, list[Float[Array, "length"]], Scalar]:
        """Through the steps that aren't differentiated, at η; as of `run`."""
        job, begun = self.job, _copied(self.job.begin())
        return self.run(programs.advance, job.value, job.eta, begun, job.start, job.first)

    def around(self, directions: Float[Array, "n N"], step: float) -> Eta:
        """η on both sides along directions, [2n, ...]: first all of one side."""
        flat, unflatten = ravel_pytree(self.job.eta)
        offsets = step * jnp.concatenate([directions, -directions])
        return jax.vmap(unflatten)(flat[None, :] + offsets)

    def begun(self, base: State, directions: Float[Array, "n N"], step: float) -> State:
        """What both sides begin with, [2n, ...], where all share the state before."""
        job = self.job
        if job.start_counts:
            return programs.begin_each(job.problem, self.around(directions, step), job.state)
        return jax.tree.map(lambda leaf: jnp.stack([leaf] * (2 * len(directions))), base)

    def sides(
        self, states: State, directions: Float[Array, "n N"], step: float
    ) -> tuple[State, Float[Array, "2*n steps"], Float[Array, "n 2"]]:
        """Both sides along directions, through the steps that are differentiated.

        Args:
            states: before them, [2n, ...]; their memory is given away.
            directions: v, a row each.
            step: how far to either side.

        Returns:
            The states after them, [2n, ...], the losses, and the objective on both sides.
        """
        job, count, etas = self.job, len(directions), self.around(directions, step)
        states, losses, values = self.run(
            programs.advance_each, job.value_each, etas, states, job.first, job.stop
        )
        both = jnp.stack([values[:count], values[count:]], axis=1)
        return states, jnp.concatenate(losses, axis=1), both

    def run(
        self,
        program: Callable[..., tuple[State, Float[Array, "*each length"]]],
        measure: Callable[[State, int], Float[Array, "*each"]],
        eta: Eta,
        state: State,
        first: int,
        stop: int,
    ) -> tuple[State, list[Float[Array, "*each length"]], Float[Array, "*each"]]:
        """Inner steps `first` to `stop` of one training, or of each of several, by a program.

        Returns:
            The state after them, the losses of each segment, and what the objective comes to at
            the points among them, by `measure`.
        """
        job, losses, value = self.job, [], jnp.zeros(())
        for lo, hi in job.bounds(first, stop, self.segment):
            segment = fetch(job.batches, lo, hi, self.segment)
            state, found = program(job.problem, eta, state, segment)
            # One segment waits while another runs; more would hold on to their batches.
            jax.block_until_ready(losses[-1:])
            losses.append(found[..., : hi - lo])
            self.done += hi - lo
            job.tell("forward", self.done, losses[-1].ravel(), steps=self.total)
            if hi in job.points:
                value = value + measure(state, hi)
        return state, losses, value


def _copied(state: State) -> State:
    """A copy, whose memory may be given away."""
    return jax.tree.map(jnp.copy, state)
