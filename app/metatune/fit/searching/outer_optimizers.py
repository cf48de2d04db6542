"""Outer optimizers: how a hypergradient moves the meta-parameters.

Where η is a mapping from the key of a tunable to its slice, a tunable may have a rate of its own.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metatune.recipe import schema
from metatune.recipe.schema.tune import keyed

PerTunable = Mapping[str, float] | None
"""Learning rates, or first step sizes, of some tunables by their keys."""


class SignState(NamedTuple):
    """State of `sign_with_halving`.

    Attributes:
        steps: step size of each meta-parameter.
        signs: sign of its last hypergradient that wasn't zero; zero if there was none.
    """

    steps: Any
    signs: Any


def sign_with_halving(
    learning_rate: float, per_tunable: PerTunable = None
) -> optax.GradientTransformation:
    """Steps by the sign of the hypergradient; halves a step size when its sign flips.

    `s ← s / 2 where sign(g) sign(g_previous) < 0;  η ← η - s sign(g)`

    Args:
        learning_rate: the first step size of every meta-parameter.
        per_tunable: other first step sizes, by the key of a tunable.

    Source: Micaelli & Storkey, NeurIPS 2021, section 5 (outer optimisation).
    """

    def init(params: Any) -> SignState:
        steps = jax.tree.map(jnp.full_like, params, _rates(params, learning_rate, per_tunable))
        return SignState(steps, jax.tree.map(jnp.zeros_like, params))

    def update(grads: Any, state: SignState, params: Any = None) -> tuple[Any, SignState]:
        del params
        signs = jax.tree.map(jnp.sign, grads)
        steps = jax.tree.map(
            lambda step, new, old: jnp.where(new * old < 0, step / 2, step),
            state.steps,
            signs,
            state.signs,
        )
        # A hypergradient of exactly zero says nothing: the last sign is remembered.
        known = jax.tree.map(lambda new, old: jnp.where(new == 0, old, new), signs, state.signs)
        return jax.tree.map(lambda s, sign: -s * sign, steps, signs), SignState(steps, known)

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]


def converged(optimizer: schema.OptimizerSpec, opt_state: Any) -> bool:
    """Whether steps have become so small that there is no point in going on; of `sign` only.

    `s < tolerance` for every meta-parameter that ever moved. One whose hypergradient has always
    been zero, such as that of a window before those that are differentiated, has no step to halve.

    Args:
        optimizer: the recipe's choice.
        opt_state: its state, as of what `build` builds.
    """
    if not isinstance(optimizer, schema.SignSpec) or optimizer.tolerance is None:
        return False
    state = _sign_state(opt_state)
    moved = [np.asarray(sign) != 0 for sign in jax.tree.leaves(state.signs)]
    below = [np.asarray(step) < optimizer.tolerance for step in jax.tree.leaves(state.steps)]
    return any(map(np.any, moved)) and all(
        np.all(small[yes]) for small, yes in zip(below, moved, strict=True)
    )


def handed_on(before: schema.OptimizerSpec, after: schema.OptimizerSpec, opt_state: Any) -> bool:
    """Whether the state of one phase's optimizer is what that of the next begins with.

    Moments are. Step sizes are where they begin alike; where they have converged, a phase that
    began with them would end at once.
    """
    if isinstance(before, schema.SignSpec) and isinstance(after, schema.SignSpec):
        alike = _first_steps(before) == _first_steps(after)
        return alike and not converged(after, opt_state)
    return type(before) is type(after)


def build(
    optimizer: schema.OptimizerSpec,
    clip_norm: float | None,
    clip: float | Mapping[str, float] | None = None,
    members: int | None = None,
    *,
    counted: bool = False,
) -> optax.GradientTransformation:
    """The outer optimizer of a recipe.

    A hypergradient is clipped first, each tunable's by its norm, then all by the global norm; then
    the optimizer sees it, which for `sign` changes nothing; each tunable's rate multiplies what
    comes out of it.

    Args:
        optimizer: the recipe's choice.
        clip_norm: largest global norm; None for no clipping.
        clip: largest norm of each tunable, one for all or by key; None for no clipping.
        members: of a population whose members each have an optimizer of their own, how many: then
            hypergradients are stacked, [M, ...]. None for a single one.
        counted: whether updates take `counts`, which multiply what has been clipped (`times`).
    """
    each = optax.identity() if clip is None else clip_each(clip)
    together = optax.identity() if clip_norm is None else optax.clip_by_global_norm(clip_norm)
    scaled = (times(),) if counted else ()
    chain = optax.chain(each, together, *scaled, BUILDERS[type(optimizer)](optimizer))
    return chain if members is None else own(chain, members)


def own(optimizer: optax.GradientTransformation, members: int) -> optax.GradientTransformation:
    """An optimizer for each member of a population, whose updates are averaged.

    Takes gradients stacked over the members, [M, ...], and has states stacked in the same way.

    Source: Calian et al., DataRater: Meta-Learned Dataset Curation, 2025.
    """

    def init(params: Any) -> Any:
        return jax.vmap(lambda _: optimizer.init(params))(jnp.arange(members))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        each, state = jax.vmap(lambda g, s: optimizer.update(g, s))(updates, state)
        return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), each), state

    return optax.GradientTransformation(init, update)


def times() -> optax.GradientTransformationExtraArgs:
    """Multiplies hypergradients by `counts`, an argument of the update.

    That is factors by the key of a tunable; others stay as they are.
    """

    def update(
        grads: Any, state: Any, params: Any = None, *, counts: Mapping[str, Any], **_: Any
    ) -> tuple[Any, Any]:
        del params
        return {**grads, **{key: grads[key] * count for key, count in counts.items()}}, state

    return optax.GradientTransformationExtraArgs(
        optax.init_empty_state,
        update,  # pyright: ignore[reportArgumentType]
    )


def clip_each(largest: float | Mapping[str, float]) -> optax.GradientTransformation:
    """Scales the hypergradient of a tunable down to a norm where it exceeds it.

    Args:
        largest: norm of each, one for all or by entry of `tune`; those that aren't named stay as
            they are.
    """

    def clipped(grads: Any, params: Any = None) -> Any:
        del params
        most = keyed(largest) if isinstance(largest, Mapping) else dict.fromkeys(grads, largest)
        scales = {
            key: most[key] / jnp.maximum(optax.tree.norm(grads[key]), most[key])
            for key in grads.keys() & most.keys()
        }
        return {key: grad * scales[key] if key in scales else grad for key, grad in grads.items()}

    return optax.stateless(clipped)


def averaged(average: Any, eta: Any, decay: float, count: int) -> Any:
    """The moving average of η with the meta-parameters of one more outer step.

    `Σ_i decay^(count-i) η_i / Σ_i decay^(count-i)` over i from 0 to `count`: without the bias
    towards the first that a plain one has (Kingma & Ba, 2015, section 3).

    Args:
        average: of η_0 to η_(count-1).
        eta: η_count.
        decay: of the weights, per outer step.
        count: outer steps done.
    """
    weight = (1 - decay) / (1 - decay ** (count + 1))
    return jax.tree.map(lambda mean, leaf: mean + weight * (leaf - mean), average, eta)


def _rates(tree: Any, learning_rate: float, per_tunable: PerTunable) -> Any:
    """A rate for each leaf of a tree like η: that of its tunable, or the common one."""
    own = keyed(per_tunable or {})

    def rate(path: tuple[Any, ...], _: Any) -> float:
        tunable = getattr(path[0], "key", None) if path else None
        return own.get(tunable, learning_rate) if tunable else learning_rate

    return jax.tree_util.tree_map_with_path(rate, tree)


def _adam(spec: schema.AdamSpec) -> optax.GradientTransformation:
    return optax.chain(optax.scale_by_adam(b1=spec.b1, b2=spec.b2), _scaled_by_rates(spec))


def _descent(spec: schema.DescentSpec) -> optax.GradientTransformation:
    return optax.chain(optax.trace(spec.momentum), _scaled_by_rates(spec))


def _scaled_by_rates(spec: schema.AdamSpec | schema.DescentSpec) -> optax.GradientTransformation:
    """Against what comes in, each tunable at its rate."""

    def descend(updates: Any, params: Any = None) -> Any:
        del params
        rates = _rates(updates, spec.learning_rate, spec.per_tunable)
        return jax.tree.map(lambda leaf, rate: -rate * leaf, updates, rates)

    return optax.stateless(descend)


def _sign_state(opt_state: Any) -> SignState:
    """The only one within a state of `build`."""
    leaves = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, SignState))
    (found,) = [leaf for leaf in leaves if isinstance(leaf, SignState)]
    return found


def _first_steps(optimizer: schema.SignSpec) -> tuple[float, Mapping[str, float]]:
    return optimizer.learning_rate, optimizer.per_tunable or {}


BUILDERS: Mapping[type, Callable[[Any], optax.GradientTransformation]] = {
    schema.AdamSpec: _adam,
    schema.DescentSpec: _descent,
    schema.SignSpec: lambda spec: sign_with_halving(spec.learning_rate, spec.per_tunable),
}
