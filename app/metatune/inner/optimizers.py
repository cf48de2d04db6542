"""Inner optimizers: optax, with the learning rate taken out so that it can be tuned."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax

from metatune.models import ParameterNames
from metatune.recipe import schema


def direction(optimizer: schema.AdamW | schema.SGD, names: Any) -> optax.GradientTransformation:
    """The update before its learning rate: `θ' = θ - rate * direction`.

    With one rate for all parameters this is the optax optimizer of the same name.

    Args:
        optimizer: the recipe's choice.
        names: `ParameterNames` at the leaves of a tree like the parameters.
    """
    return BUILDERS[type(optimizer)](optimizer, decay_mask(optimizer, names))


def decay_mask(optimizer: schema.AdamW | schema.SGD, names: Any) -> Callable[[Any], Any]:
    """Maps parameters to whether weight decay applies, a tree of booleans."""

    def decays(leaf: ParameterNames, parameter: Any) -> bool:
        return optimizer.decay == "all" or parameter.ndim - leaf.stacked >= 2

    def mask(params: Any) -> Any:
        return jax.tree.map(decays, names, params)

    return mask


def decayed(optimizer: schema.AdamW | schema.SGD, names: Any, params: Any) -> tuple[str, ...]:
    """Checkpoint names of the parameters that weight decay applies to."""
    leaves = jax.tree.leaves(names)
    mask = jax.tree.leaves(decay_mask(optimizer, names)(params))
    return tuple(name for leaf, yes in zip(leaves, mask, strict=True) if yes for name in leaf.names)


def _adamw(spec: schema.AdamW, mask: Callable[[Any], Any]) -> optax.GradientTransformation:
    return optax.chain(
        _clip(spec.clip_norm),
        optax.scale_by_adam(b1=spec.b1, b2=spec.b2, eps=spec.eps, eps_root=spec.eps_root),
        optax.add_decayed_weights(spec.weight_decay, mask),
    )


def _sgd(spec: schema.SGD, mask: Callable[[Any], Any]) -> optax.GradientTransformation:
    return optax.chain(
        _clip(spec.clip_norm),
        optax.add_decayed_weights(spec.weight_decay, mask),
        optax.trace(spec.momentum, spec.nesterov),
    )


BUILDERS: Mapping[type, Callable[..., optax.GradientTransformation]] = {
    schema.AdamW: _adamw,
    schema.SGD: _sgd,
}


def _clip(norm: float | None) -> optax.GradientTransformation:
    return optax.identity() if norm is None else optax.clip_by_global_norm(norm)
