"""What is differentiated: a training, cut where the estimators need to take hold of it."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax

PyTree = Any
Batches = Callable[[int], PyTree]
"""Random access to the data: the batch of an inner step, a pure function of the step."""


class Problem(NamedTuple):
    """An inner training and the objective that it is judged by.

    The inner step is `θ', υ' = Υ(∇_θ L(θ, λ_t, x_t), θ, υ, λ_t)`. Loss and update are kept apart
    because each estimator differentiates the gradient between them in its own way.

    A problem is a static argument of compiled programs: build it once and reuse it. Parameters and
    hyperparameters have floating-point leaves; an optimizer state may hold integers as well.

    Attributes:
        loss: `(params, hyper, batch) -> scalar`, the inner loss L.
        update: `(grads, opt_state, params, hyper) -> (params, opt_state)`, the optimizer Υ.
        objective: `(params, batch) -> scalar`, the outer objective F.
        hyper_at: `(eta, step) -> hyper`, the map η ↦ λ_t; `step` is a traced int32.
    """

    loss: Callable[[PyTree, PyTree, PyTree], jax.Array]
    update: Callable[[PyTree, PyTree, PyTree, PyTree], tuple[PyTree, PyTree]]
    objective: Callable[[PyTree, PyTree], jax.Array]
    hyper_at: Callable[[PyTree, jax.Array], PyTree]


class State(NamedTuple):
    """The state of an inner training: parameters θ and optimizer state υ."""

    params: PyTree
    opt_state: PyTree


class Diagnostics(NamedTuple):
    """What was seen on the way.

    Attributes:
        losses: inner loss before each update, [steps].
        peak_states: the most states between segments that were kept at a time.
        peak_bytes: the most bytes in their store at a time, saved gradients included.
        recomputed_segments: segments run again for want of a kept state.
    """

    losses: jax.Array
    peak_states: int = 0
    peak_bytes: int = 0
    recomputed_segments: int = 0


class Hypergradient(NamedTuple):
    """The result of one estimate.

    Attributes:
        value: the objective F(θ_T), a scalar.
        gradient: dF/dη, a pytree like η.
        state: the trained state (θ_T, υ_T).
        diagnostics: what was seen on the way.
    """

    value: jax.Array
    gradient: PyTree
    state: State
    diagnostics: Diagnostics


class Progress(NamedTuple):
    """Where a long computation stands, told after each segment.

    Attributes:
        phase: which sweep.
        step: inner steps done in this sweep.
        steps: inner steps of a sweep.
        loss: the latest inner loss.
    """

    phase: Literal["forward", "backward"]
    step: int
    steps: int
    loss: float


def inner_step(
    problem: Problem, eta: PyTree, state: State, batch: PyTree, step: jax.Array
) -> tuple[State, jax.Array, PyTree]:
    """One step of the inner training.

    Returns:
        The next state, the loss L before the update, and its gradient g.
    """
    loss, grads = inner_gradient(problem, eta, state, batch, step)
    return inner_update(problem, eta, state, grads, step), loss, grads


def inner_gradient(
    problem: Problem, eta: PyTree, state: State, batch: PyTree, step: jax.Array
) -> tuple[jax.Array, PyTree]:
    """The loss L of an inner step, and its gradient g."""
    hyper = problem.hyper_at(eta, step)
    return jax.value_and_grad(problem.loss)(state.params, hyper, batch)


def inner_update(
    problem: Problem, eta: PyTree, state: State, grads: PyTree, step: jax.Array
) -> State:
    """The state after an inner step with gradient g."""
    hyper = problem.hyper_at(eta, step)
    return State(*problem.update(grads, state.opt_state, state.params, hyper))
