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
    """

    losses: jax.Array


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
    hyper = problem.hyper_at(eta, step)
    loss, grads = jax.value_and_grad(problem.loss)(state.params, hyper, batch)
    params, opt_state = problem.update(grads, state.opt_state, state.params, hyper)
    return State(params, opt_state), loss, grads
