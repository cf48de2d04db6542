"""Optimizers that take a tensor as a whole, layer by layer where the model stacks them."""

import jax
import jax.numpy as jnp
import optax

from metatune.hypergrad.shapes import OptState, Params
from metatune.tunables.shapes import Names


def layers_apart(inner: optax.GradientTransformation, names: Names) -> optax.GradientTransformation:
    """Applies `inner` to every tensor by itself, to those of each layer where they are stacked.

    Args:
        inner: what sees one tensor.
        names: `ParameterNames` at the leaves of a tree like the parameters.
    """
    flat, treedef = jax.tree.flatten(names)
    # Like the parameters, each leaf a state: what it holds are the states of its layers.
    inits = [jax.vmap(inner.init) if leaf.stacked else inner.init for leaf in flat]
    each = [jax.vmap(inner.update) if leaf.stacked else inner.update for leaf in flat]

    def init(params: Params) -> OptState:
        leaves = jax.tree.leaves(params)
        return treedef.unflatten([one(leaf) for one, leaf in zip(inits, leaves, strict=True)])

    def update(
        updates: Params, state: OptState, params: Params | None = None
    ) -> tuple[Params, OptState]:
        given = [treedef.flatten_up_to(tree) for tree in (updates, state, params)]
        found = [one(*leaves) for one, *leaves in zip(each, *given, strict=True)]
        directions, states = zip(*found, strict=True)
        return treedef.unflatten(directions), treedef.unflatten(states)

    return optax.GradientTransformation(init, update)


def unless_zero(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """Leaves a tensor of zeros as it is, in value and derivative; `inner` has no state.

    A norm has no derivative at zero, and automatic differentiation makes it not a number.
    """

    def update(
        updates: Params, state: OptState, params: Params | None = None
    ) -> tuple[Params, OptState]:
        silent = ~jnp.any(updates != 0)
        found: Params
        found, state = inner.update(jnp.where(silent, 1, updates), state, params)
        return jnp.where(silent, 0, found), state

    return optax.GradientTransformation(inner.init, update)
