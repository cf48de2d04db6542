"""Inner optimizers: optax, with the learning rate taken out so that it can be tuned.

Every number of an optimizer that can be tuned is an argument of its update, not part of the
compiled program. A new optimizer is a dataclass of the recipe's schema and a row of `DIRECTIONS`;
one that isn't `θ' = θ - rate * direction` is a row of `BUILDERS`.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from typing import NamedTuple

import jax
import optax
from jaxtyping import Array, Float, PyTree

from metatune.hypergrad.shapes import OptState, Params, Shapes
from metatune.inner import hyperball, schedule_free
from metatune.inner.adopt import adopt
from metatune.inner.learned_update import corrected
from metatune.inner.normuon import neurons_alike
from metatune.inner.orthogonal import orthogonal, orthogonal_momentum
from metatune.inner.per_matrix import layers_apart, unless_zero
from metatune.inner.side_by_side import by_group, side_by_side
from metatune.inner.soap import soap
from metatune.models import ParameterNames
from metatune.recipe import schema
from metatune.tunables import Correction, Form, Hyper
from metatune.tunables.hyper import Rates
from metatune.tunables.optimizer_groups import of_blocks, of_group, places
from metatune.tunables.shapes import Names


class InnerOptimizer(NamedTuple):
    """An inner optimizer, whose hyperparameters are arguments.

    Attributes:
        init: parameters to the optimizer's state.
        update: `(grads, opt_state, params, hyper) -> (params, opt_state)`, as of a `Problem`.
        evaluated: `(params, opt_state) -> params`, the parameters that are judged and kept; None
            where they are those that are trained.
    """

    init: Callable[[Params], OptState]
    update: Callable[[Params, OptState, Params, Hyper], tuple[Params, OptState]]
    evaluated: Callable[[Params, OptState], Params] | None = None


def build(
    optimizer: schema.InnerOptimizerSpec,
    names: Names,
    transposed: bool = False,
    learned: Form | None = None,
) -> InnerOptimizer:
    """The inner optimizer of a recipe.

    Args:
        optimizer: the recipe's choice.
        names: `ParameterNames` at the leaves of a tree like the parameters.
        transposed: whether the matrices of blocks are [in, out], not [out, in].
        learned: the form of a learned update of its direction; None for none.

    Raises:
        ValueError: a learned update of an optimizer that isn't `θ' = θ - rate * direction`.
    """
    builder = BUILDERS.get(type(optimizer))
    if builder is None and not isinstance(optimizer, schema.GroupsSpec):
        return _along_a_direction(optimizer, names, transposed, learned)
    if learned is not None:
        raise ValueError(f"{optimizer.kind} takes no learned update: it steps along no direction")
    if isinstance(optimizer, schema.GroupsSpec):
        return _side_by_side(optimizer, names, transposed)
    return BUILDERS[type(optimizer)](optimizer, names, transposed)


def direction(
    optimizer: schema.SingleOptimizerSpec,
    names: Names,
    transposed: bool = False,
    learned: Form | None = None,
    correction: Correction | None = None,
    eps_scale: Rates | None = None,
) -> optax.GradientTransformation:
    """The update before its learning rate: `θ' = θ - rate * direction`.

    With one rate for all parameters this is the optax optimizer of the same name.

    Args:
        optimizer: the recipe's choice; what of it can be tuned may be traced, and its weight decay
            be a tree like the parameters, as of `Hyper.optimizer`.
        names: `ParameterNames` at the leaves of a tree like the parameters.
        transposed: whether the matrices of blocks are [in, out], not [out, in].
        learned: the form of a learned update; None for none.
        correction: its networks at this inner step; None to initialise alone.
        eps_scale: as of `Hyper`.
    """
    norm = optimizer.clip_norm
    parts = DIRECTIONS[type(optimizer)](optimizer, names, transposed)
    if learned is not None:
        parts = (corrected(optax.chain(*parts), names, learned, correction),)
    clipped = optax.identity() if norm is None else optax.clip_by_global_norm(norm)
    if eps_scale is not None:
        clipped = _shrunk_after(clipped, eps_scale)
    return optax.chain(clipped, *parts)


def _shrunk_after(first: optax.GradientTransformation, by: Rates) -> optax.GradientTransformation:
    """Gradients over `by` after `first`, whose state stays as it is.

    Adam divides the size of gradients out but for ε: over f, they have f times as large a one.
    """

    def update(
        updates: Params, state: OptState, params: Params | None = None
    ) -> tuple[Params, OptState]:
        updates, state = first.update(updates, state, params)
        return jax.tree.map(lambda g, f: g / f, updates, by), state

    return optax.GradientTransformation(first.init, update)


def decaying(optimizer: schema.InnerOptimizerSpec, names: Names, params: Shapes) -> Names:
    """The names of the parameters that weight decay applies to: a tree, None at all others.

    Of optimizers side by side, those of a group whose weight decay is zero aren't among them.
    """
    if isinstance(optimizer, schema.GroupsSpec):

        def of_one(alone: schema.SingleOptimizerSpec, own: Names, shapes: Shapes) -> Names:
            none = jax.tree.map(lambda _: None, own)
            return decaying(alone, own, shapes) if alone.weight_decay else none

        return by_group(optimizer, places(optimizer, names), of_one, names, params)

    def decays(
        leaf: ParameterNames, parameter: Float[Array | jax.ShapeDtypeStruct, "..."], keeps: bool
    ) -> ParameterNames | None:
        all_do = optimizer.decay == "all"
        return leaf if not keeps and (all_do or parameter.ndim - leaf.lead >= 2) else None

    kept = jax.tree.map(lambda _: False, names)
    if isinstance(optimizer, schema.AdamHSpec | schema.MuonHSpec):
        kept = hyperball.kept(names, params)
    return jax.tree.map(decays, names, params, kept)


def decayed(optimizer: schema.InnerOptimizerSpec, names: Names, params: Shapes) -> tuple[str, ...]:
    """Checkpoint names of the parameters that weight decay applies to."""
    leaves = jax.tree.leaves(decaying(optimizer, names, params))
    return tuple(name for leaf in leaves for name in leaf.names)


def members(
    optimizer: schema.InnerOptimizerSpec, names: Names, params: Shapes
) -> tuple[Mapping[str, tuple[str, ...]], ...]:
    """Of each of several optimizers side by side, checkpoint names by what they are in it.

    Args:
        optimizer: the recipe's choice.
        names: `ParameterNames` at the leaves of a tree like the parameters.
        params: the parameters, or their shapes.

    Returns:
        `parameters` are all of the group. Muon, MuonH and NorMuon have `orthogonal`, those whose
        momentum is made so, and `inputs_first`, those of them that checkpoints hold as [in, out].
        AdamH and MuonH have `turned`, those that keep their norm. Empty of one optimizer.
    """
    if not isinstance(optimizer, schema.GroupsSpec):
        return ()
    at, found = places(optimizer, names), []
    for place, group in enumerate(optimizer.groups):
        own, shapes = of_group(names, at, place), of_group(params, at, place)
        trees = {"parameters": jax.tree.map(lambda _: True, own)}
        if isinstance(group, schema.MuonSpec | schema.MuonHSpec | schema.NorMuonSpec):
            trees["orthogonal"] = jax.tree.map(of_blocks, own, shapes)
            trees["inputs_first"] = jax.tree.map(
                lambda leaf, is_one: is_one and leaf.transposed, own, trees["orthogonal"]
            )
        if isinstance(group, schema.AdamHSpec | schema.MuonHSpec):
            trees["turned"] = hyperball.kept(own, shapes)
        leaves = jax.tree.leaves(own)
        found.append(
            {
                key: tuple(
                    name
                    for leaf, holds in zip(leaves, jax.tree.leaves(tree), strict=True)
                    for name in leaf.names
                    if holds
                )
                for key, tree in trees.items()
            }
        )
    return tuple(found)


def tuned(optimizer: schema.SingleOptimizerSpec, hyper: Hyper) -> schema.SingleOptimizerSpec:
    """The optimizer as it is in this inner step: with what is tuned in its place."""
    return replace(optimizer, **hyper.optimizer) if hyper.optimizer else optimizer


def _along_a_direction(
    optimizer: schema.SingleOptimizerSpec, names: Names, transposed: bool, learned: Form | None
) -> InnerOptimizer:
    """`θ' = θ - rate * direction`, with a rate for each parameter."""

    def update(
        grads: Params, opt_state: OptState, params: Params, hyper: Hyper
    ) -> tuple[Params, OptState]:
        transformation = direction(
            tuned(optimizer, hyper),
            names,
            transposed,
            learned,
            hyper.learned_update,
            hyper.eps_scale,
        )
        directions, opt_state = transformation.update(grads, opt_state, params)
        params = jax.tree.map(
            lambda p, d, rate: p - rate * d, params, directions, hyper.learning_rate
        )
        return params, opt_state

    return InnerOptimizer(direction(optimizer, names, transposed, learned).init, update)


def _schedule_free(
    spec: schema.ScheduleFreeAdamWSpec, names: Names, transposed: bool
) -> InnerOptimizer:
    """A step, and an average."""

    def init(params: Params) -> schedule_free.ScheduleFreeState:
        return schedule_free.init(direction(spec, names, transposed), names, params)

    def update(
        grads: Params, opt_state: OptState, params: Params, hyper: Hyper
    ) -> tuple[Params, OptState]:
        inner = direction(tuned(spec, hyper), names, transposed)
        return schedule_free.step(spec, inner, grads, opt_state, params, hyper.learning_rate)

    return InnerOptimizer(init, update, lambda params, s: schedule_free.average(spec, params, s))


def _hyperball(
    spec: schema.AdamHSpec | schema.MuonHSpec, names: Names, transposed: bool
) -> InnerOptimizer:
    """A direction, along which matrices turn."""

    def update(
        grads: Params, opt_state: OptState, params: Params, hyper: Hyper
    ) -> tuple[Params, OptState]:
        along = direction(tuned(spec, hyper), names, transposed)
        directions, opt_state = along.update(grads, opt_state, params)
        return hyperball.turned(names, params, directions, hyper.learning_rate), opt_state

    return InnerOptimizer(direction(spec, names, transposed).init, update)


def _side_by_side(spec: schema.GroupsSpec, names: Names, transposed: bool) -> InnerOptimizer:
    """Several, each of its own group."""
    at = places(spec, names)
    each = [
        build(group.alone, of_group(names, at, place), transposed)
        for place, group in enumerate(spec.groups)
    ]
    return InnerOptimizer(*side_by_side(spec, at, [(own.init, own.update) for own in each]))


BUILDERS: Mapping[type, Callable[..., InnerOptimizer]] = {
    schema.ScheduleFreeAdamWSpec: _schedule_free,
    schema.AdamHSpec: _hyperball,
    schema.MuonHSpec: _hyperball,
}


def _decay(optimizer: schema.SingleOptimizerSpec, names: Names) -> optax.GradientTransformation:
    """`direction + weight_decay * θ` where it decays, as `optax.add_decayed_weights`."""

    def add(updates: Params, params: Params) -> Params:
        decay = optimizer.weight_decay
        if not isinstance(decay, Mapping):
            where = decaying(optimizer, names, params)
            decay = jax.tree.map(lambda leaf: leaf and decay, where, is_leaf=_is_none)
        return jax.tree.map(
            lambda own, u, p: u if own is None else u + own * p,
            decay,
            updates,
            params,
            is_leaf=_is_none,
        )

    return optax.stateless(add)


def _is_none(node: object) -> bool:
    return node is None


Chain = tuple[optax.GradientTransformation, ...]


Adams = (
    schema.AdamWSpec | schema.MuonSpec | schema.AdamHSpec | schema.MuonHSpec | schema.NorMuonSpec
)


def _adam(spec: Adams) -> optax.GradientTransformation:
    # Tuned decays are corrected for by their values in this step, as PyTorch does with those of its
    # groups: the exported schedules train as these do.
    return optax.scale_by_adam(b1=spec.b1, b2=spec.b2, eps=spec.eps, eps_root=spec.eps_root)


def _adamw(spec: schema.AdamWSpec | schema.AdamHSpec, names: Names, transposed: bool) -> Chain:
    return _adam(spec), _decay(spec, names)


def _sgd(spec: schema.SGDSpec, names: Names, transposed: bool) -> Chain:
    return _decay(spec, names), optax.trace(spec.momentum, spec.nesterov)


def _lion(spec: schema.LionSpec, names: Names, transposed: bool) -> Chain:
    return optax.scale_by_lion(b1=spec.b1, b2=spec.b2), _decay(spec, names)


def _muon(spec: schema.MuonSpec, names: Names, transposed: bool) -> Chain:
    return _of_blocks(orthogonal(spec, transposed), _adam(spec), names), _decay(spec, names)


def _muonh(spec: schema.MuonHSpec, names: Names, transposed: bool) -> Chain:
    muon = orthogonal_momentum(spec, transposed)
    return _of_blocks(muon, _adam(spec), names), _decay(spec, names)


def _normuon(spec: schema.NorMuonSpec, names: Names, transposed: bool) -> Chain:
    muon = optax.chain(orthogonal_momentum(spec, transposed), neurons_alike(spec.b2, transposed))
    return _of_blocks(muon, _adam(spec), names), _decay(spec, names)


def _of_blocks(
    muon: optax.GradientTransformation, adam: optax.GradientTransformation, names: Names
) -> optax.GradientTransformation:
    """`muon` for the matrices of the blocks: what is stacked by layer alone, with two axes more."""

    def labels(params: Params) -> PyTree[str]:
        return jax.tree.map(lambda leaf, p: "muon" if of_blocks(leaf, p) else "adam", names, params)

    each: dict[Hashable, optax.GradientTransformation] = {"muon": muon, "adam": adam}
    return optax.partition(each, labels)


def _adafactor(spec: schema.AdafactorSpec, names: Names, transposed: bool) -> Chain:
    parts = [
        optax.scale_by_factored_rms(
            decay_rate=spec.decay_rate,
            min_dim_size_to_factor=spec.min_dim_size_to_factor,
            epsilon=spec.eps,
        )
    ]
    if spec.clipping_threshold is not None:
        parts.append(unless_zero(optax.clip_by_block_rms(spec.clipping_threshold)))
    if spec.scale_by_parameter:
        parts.append(optax.scale_by_param_block_rms())
    return layers_apart(optax.chain(*parts), names), _decay(spec, names)


def _second_moment(spec: schema.ScheduleFreeAdamWSpec, names: Names, transposed: bool) -> Chain:
    scaled = schedule_free.scale_by_second_moment(spec.b2, spec.eps, spec.eps_root)
    return scaled, _decay(spec, names)


def _adopt(spec: schema.AdoptSpec, names: Names, transposed: bool) -> Chain:
    return adopt(spec), _decay(spec, names)


def _soap(spec: schema.SoapSpec, names: Names, transposed: bool) -> Chain:
    return (soap(spec, names, _decay(spec, names)),)


DIRECTIONS: Mapping[type, Callable[..., Chain]] = {
    schema.AdamWSpec: _adamw,
    schema.SGDSpec: _sgd,
    schema.LionSpec: _lion,
    schema.MuonSpec: _muon,
    schema.NorMuonSpec: _normuon,
    schema.AdafactorSpec: _adafactor,
    schema.ScheduleFreeAdamWSpec: _second_moment,
    schema.AdoptSpec: _adopt,
    schema.SoapSpec: _soap,
    schema.AdamHSpec: _adamw,
    schema.MuonHSpec: _muonh,
}
