"""What is differentiated: a training, cut where the estimators need to take hold of it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64, Int64, Integer, PyTree

from metatune.hypergrad.shapes import (
    Batch,
    Eta,
    Hyper,
    OptState,
    Params,
    Parts,
    Scalar,
    Step,
)

Batches = Callable[[int], Batch]
"""Random access to the data: the batch of an inner step, a pure function of the step."""


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("loss", "update", "objective", "hyper_at", "evaluated", "start", "whole"),
    meta_fields=("micro_batches", "trainings"),
)
@dataclass(frozen=True)
class Problem:
    """An inner training and the objective that it is judged by.

    The inner step is `θ', υ' = Υ(∇_θ L(θ, λ_t, x_t), θ, υ, λ_t)`. Loss and update are kept apart
    because each estimator differentiates the gradient between them in its own way.

    Its functions are static in compiled programs: build a problem once and reuse it. Arrays that
    they need besides their arguments, such as frozen parameters, are bound to them by
    `jax.tree_util.Partial`; in a closure they would become constants of every program. Parameters
    and hyperparameters have floating-point leaves; an optimizer state may hold integers as well.

    Attributes:
        loss: `(params, hyper, batch) -> scalar`, the inner loss L.
        update: `(grads, opt_state, params, hyper) -> (params, opt_state)`, the optimizer Υ.
        objective: `(params, batch) -> scalar`, whose mean over the outer batches is the outer
            objective F; with `whole`, a pytree of which F is made.
        hyper_at: `(eta, step) -> hyper`, the map η ↦ λ_t; `step` is a traced int32.
        evaluated: `(params, opt_state) -> params`, what of a state the objective is taken of, such
            as an average that the optimizer keeps; None for the parameters that are trained.
        micro_batches: parts that a batch is split into along axis 0 of its leaves, for the memory
            of one part; the loss of a batch must be the mean of the losses of its equal parts.
        start: `(eta, state) -> state`, the state before inner step 0, of the one that a training is
            given: where η moves the parameters that it starts from. The optimizer state has to be
            that of the moved parameters. None for a start that is the given state.
        whole: `(mean) -> scalar`, F of the mean over the outer batches of what `objective` returns,
            where it isn't linear in that; None for the mean itself.
        trainings: that the problem is of, side by side on axis 0 of the leaves of η, parameters
            and optimizer state, independent of each other; None for one.
    """

    loss: Callable[[Params, Hyper, Batch], Scalar]
    update: Callable[[Params, OptState, Params, Hyper], tuple[Params, OptState]]
    objective: Callable[[Params, Batch], Parts]
    hyper_at: Callable[[Eta, Step], Hyper]
    evaluated: Callable[[Params, OptState], Params] | None = None
    micro_batches: int = 1
    start: "Callable[[Eta, State], State] | None" = None
    whole: Callable[[Parts], Scalar] | None = None
    trainings: int | None = None


def as_argument(problem: Problem) -> Problem:
    """A problem as an argument of compiled programs: its functions static, their arrays not."""
    functions = {
        name: function
        for name in ("loss", "update", "objective", "hyper_at", "evaluated", "start", "whole")
        if (function := getattr(problem, name)) is not None
    }
    return replace(
        problem,
        **{
            name: function
            if isinstance(function, jax.tree_util.Partial)
            else jax.tree_util.Partial(function)
            for name, function in functions.items()
        },
    )


class State(NamedTuple):
    """The state of an inner training: parameters θ and optimizer state υ."""

    params: Params
    opt_state: OptState


class Growth(NamedTuple):
    """Norms of a derivative between segments, in the order of training; of M trainings each.

    In reverse mode that is the adjoint on its way back, the derivative of the objective in the
    state. In forward mode it is the tangents on their way forward, the derivative Z of the state in
    η, in all directions together; time runs the other way, and where one grows the other does.

    Attributes:
        steps: inner steps of the boundaries between segments, ascending; the derivative is that of
            the state before the step, the last is after the end.
        params: norm of the derivative in the parameters; of the tangents of the parameters: of all
            coordinates that act so far, or, along random directions, the root of the mean square
            over these, which estimates the same.
        opt_state: norm of that in the floating-point leaves of the optimizer state, likewise.
        damped: natural logarithm of what the adjoint was multiplied by between a boundary and the
            next, or its norm where it began anew; zero where no cap was in force, and of tangents.
        tangents: whether it is of tangents.
    """

    steps: Int64[np.ndarray, "n"]
    params: Float[Array, "n *M"]
    opt_state: Float[Array, "n *M"]
    damped: Float[Array, "n-1 *M"]
    tangents: bool = False

    @property
    def exponents(self) -> Float64[np.ndarray, "between *M"]:
        """λ between a boundary and the next, per inner step.

        How fast the parameters' part would grow without a cap: above zero it grows on its way, the
        adjoint back, tangents forward. NaN where there is none.
        """
        forward = 1 if self.tangents else -1
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = np.log(np.asarray(self.params, np.float64))
            grown = forward * np.diff(logs, axis=0) - np.asarray(self.damped, np.float64)
        lengths = np.diff(self.steps).astype(np.float64)
        return grown / lengths.reshape(-1, *(1,) * (grown.ndim - 1))

    def at(self, steps: Int64[np.ndarray, "some"]) -> "Growth":
        """The same at some of its boundaries, two or more, from the first to the last."""
        rows = np.flatnonzero(np.isin(self.steps, steps))
        if len(rows) == len(self.steps):
            return self
        damped = jnp.stack([self.damped[a:b].sum(axis=0) for a, b in pairwise(rows)])
        return self._replace(
            steps=self.steps[rows],
            params=self.params[rows],
            opt_state=self.opt_state[rows],
            damped=damped,
        )


class Diagnostics(NamedTuple):
    """What was seen on the way.

    Attributes:
        losses: inner loss before each update.
        peak_states: the most states between segments that were kept at a time.
        peak_bytes: the most bytes in their store at a time, saved gradients included: of each
            device, or, on host and disk, of all devices of a process.
        recomputed_segments: segments run again for want of a kept state.
        standard_errors: of the gradient, a pytree like η, where it is a mean over two or more
            random directions, or trainings.
        control: the control variate for the next estimate, where this one had one.
        lost_directions: random directions that are left out, as both sides diverged or a training
            failed elsewhere; None where none can be lost.
        diverged_sides: trainings on either side of η whose loss isn't finite, of those directions
            too; None where there are no sides.
        members: hypergradients of the trainings of a population, stacked; None for one training.
        values: their objectives, where they were taken one after the other; None else.
        growth: of the adjoint in reverse mode, of the tangents in forward mode; of the members'
            where there are several. None else.
    """

    losses: Float[Array, "steps"]
    peak_states: int = 0
    peak_bytes: int = 0
    recomputed_segments: int = 0
    standard_errors: Eta = None
    control: Eta = None
    lost_directions: int | Integer[Array, ""] | None = None
    diverged_sides: int | Integer[Array | np.integer, ""] | None = None
    members: Eta = None
    values: Float[Array, "M"] | None = None
    growth: Growth | None = None


class Hypergradient(NamedTuple):
    """The result of one estimate.

    Attributes:
        value: the objective F(θ_T).
        gradient: dF/dη, a pytree like η.
        state: the trained state (θ_T, υ_T).
        diagnostics: what was seen on the way.
    """

    value: Scalar
    gradient: Eta
    state: State
    diagnostics: Diagnostics


class Progress(NamedTuple):
    """Where a long computation stands, told after each segment.

    Attributes:
        phase: which sweep.
        step: inner steps done in this sweep, over all trainings that it takes.
        steps: inner steps of a sweep.
        loss: the latest inner loss.
        carry: of forward mode, all that `hypergradient` needs to go on from here. The next segment
            takes its memory: copy what you keep.
    """

    phase: Literal["forward", "backward"]
    step: int
    steps: int
    loss: float
    carry: PyTree = None


def inner_step(
    problem: Problem, eta: Eta, state: State, batch: Batch, step: Step
) -> tuple[State, Scalar, Params]:
    """One step of the inner training.

    Returns:
        The next state, the loss L before the update, and its gradient g.
    """
    loss, grads = inner_gradient(problem, eta, state, batch, step)
    return inner_update(problem, eta, state, grads, step), loss, grads


def inner_gradient(
    problem: Problem, eta: Eta, state: State, batch: Batch, step: Step
) -> tuple[Scalar, Params]:
    """The loss L of an inner step, and its gradient g."""
    hyper = problem.hyper_at(eta, step)
    loss, (grads,) = loss_and_gradient(problem, state.params, hyper, batch, wrt=(0,))
    return loss, grads


def loss_and_gradient(
    problem: Problem, params: Params, hyper: Hyper, batch: Batch, *, wrt: tuple[int, ...]
) -> tuple[Scalar, tuple[Params | Hyper, ...]]:
    """The loss L of a batch, and its gradients, summed over the micro-batches.

    Args:
        problem: the training.
        params: θ.
        hyper: λ.
        batch: x.
        wrt: of which to take gradients: 0 for θ, 1 for λ.

    Returns:
        The loss, and a gradient for each of `wrt`.
    """
    derive = jax.value_and_grad(problem.loss, argnums=wrt)
    parts = problem.micro_batches
    if parts == 1:
        return derive(params, hyper, batch)
    split = jax.tree.map(lambda leaf: leaf.reshape(parts, -1, *leaf.shape[1:]), batch)

    def body(total: PyTree, part: Batch) -> tuple[PyTree, None]:
        return jax.tree.map(jnp.add, total, derive(params, hyper, part)), None

    first = jax.tree.map(lambda leaf: leaf[0], split)
    shapes = jax.eval_shape(derive, params, hyper, first)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    # Recomputed in reverse mode, which else would keep what every part computed.
    total, _ = jax.lax.scan(jax.checkpoint(body, prevent_cse=False), zeros, split)
    return jax.tree.map(lambda leaf: leaf / parts, total)


def inner_update(problem: Problem, eta: Eta, state: State, grads: Params, step: Step) -> State:
    """The state after an inner step with gradient g."""
    hyper = problem.hyper_at(eta, step)
    return State(*problem.update(grads, state.opt_state, state.params, hyper))
