"""The start of a training where η moves it: `(θ_0, υ_0) = S(η, state)`, and its derivatives.

An adjoint of the state before step 0 is pulled back to η through S; along a direction v in η the
state before step 0 has the tangent `∂S/∂η v` instead of zero. Steps, their programs and what is
kept of them are the same as without.

Source: Finn et al., Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks, ICML 2017,
algorithm 1; one of the settings of MixFlow-MG, Kemaev et al., ICML 2025.
"""

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Integer

from metatune.hypergrad.forward.tangents import Tangents
from metatune.hypergrad.problem import Problem, State
from metatune.hypergrad.reverse.adjoint import Adjoint
from metatune.hypergrad.segments import inexact
from metatune.hypergrad.shapes import Eta, Floats, Params


def begin(problem: Problem, eta: Eta, state: State) -> State:
    """The state before step 0: S(η, state)."""
    if problem.start is None:
        raise ValueError("the problem has no start: a training begins from the state it is given")
    # Each leaf of a type of its own, as a state that comes back from a store has it.
    strong = jax.tree.map(
        lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf)), problem.start(eta, state)
    )
    return State(*strong)


def pulled(problem: Problem, eta: Eta, state: State, adjoint: Adjoint) -> Eta:
    """What the start adds to the hypergradient, `(∂S/∂η)ᵀ` of the adjoint before step 0."""
    _, pull = jax.vjp(lambda eta: _floats(problem, eta, state), eta)
    return pull((adjoint.params, adjoint.opt_state))[0]


def pushed(
    problem: Problem,
    eta: Eta,
    directions: Float[Array, "n N"],
    state: State,
    axis: str | None = None,
) -> Tangents:
    """The tangents of the state before step 0 along directions in η.

    On several devices directions are cut over an `axis` of their mesh; None for none.
    """
    unflatten = ravel_pytree(eta)[1]

    def along(direction: Float[Array, "N"]) -> Tangents:
        return _tangent(problem, eta, unflatten(direction), state)

    return jax.vmap(along, spmd_axis_name=axis)(directions)


def moves(problem: Problem, eta: Eta, state: State) -> Bool[Array, "N"]:
    """Whether each coordinate of η moves the state before step 0."""
    flat, unflatten = ravel_pytree(eta)

    def moved(coordinate: Integer[Array, ""]) -> Bool[Array, ""]:
        direction = jnp.zeros_like(flat).at[coordinate].set(1)
        found = _tangent(problem, eta, unflatten(direction), state)
        return jnp.any(jnp.stack([jnp.any(leaf != 0) for leaf in jax.tree.leaves(found)]))

    # One after the other: together they would be as large as N states.
    return jax.lax.map(moved, jnp.arange(len(flat)))


def _tangent(problem: Problem, eta: Eta, direction: Eta, state: State) -> Tangents:
    return Tangents(*jax.jvp(lambda eta: _floats(problem, eta, state), (eta,), (direction,))[1])


def _floats(problem: Problem, eta: Eta, state: State) -> tuple[Params, Floats]:
    """Parameters and floating-point leaves of the optimizer state before step 0."""
    params, opt_state = begin(problem, eta, state)
    return params, inexact(opt_state)[0]
