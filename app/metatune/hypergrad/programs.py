"""The compiled programs: all that runs on a device.

Compiled once for a problem and the shapes of its arrays, whatever the number of inner steps.
"""

from functools import partial

import jax

from metatune.hypergrad import segments
from metatune.hypergrad.estimator import Adjoint, Estimator, Forward
from metatune.hypergrad.problem import Problem, PyTree, State
from metatune.hypergrad.segments import Segment


@partial(jax.jit, static_argnums=1)
def forward(
    problem: Problem, estimator: Estimator, eta: PyTree, state: State, segment: Segment
) -> Forward:
    """A segment forward."""
    return estimator.forward(problem, eta, state, segment)


@partial(jax.jit, static_argnums=1, donate_argnums=5)
def pullback(
    problem: Problem,
    estimator: Estimator,
    eta: PyTree,
    segment: Segment,
    taken: tuple[State, PyTree],
    adjoint: Adjoint,
) -> Adjoint:
    """A segment backward; `taken` is the state before it and what its forward run saved."""
    state, saved = taken
    return estimator.pullback(problem, eta, state, segment, saved, adjoint)


@jax.jit
def objective(problem: Problem, params: PyTree, batch: PyTree) -> tuple[jax.Array, PyTree]:
    """The objective on a batch, and its gradient in the parameters."""
    return jax.value_and_grad(problem.objective)(params, batch)


@partial(jax.jit, donate_argnums=2)
def advance(
    problem: Problem, eta: PyTree, state: State, segment: Segment
) -> tuple[State, jax.Array]:
    """A segment of training alone; gives the memory of the state to the next one."""
    return segments.advance(problem, eta, state, segment)
