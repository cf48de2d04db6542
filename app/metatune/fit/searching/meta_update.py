"""How a hypergradient moves η: penalty, sharing, clipping, optimizer, gate, average, in turn."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metatune import tunables
from metatune.fit.searching import outer_optimizers, population
from metatune.fit.searching.gating import Gated, gated
from metatune.fit.searching.search import Search
from metatune.fit.searching.sharing import Sharing, sharing
from metatune.hypergrad import Hypergradient
from metatune.inner import InnerTraining
from metatune.recipe.phases import Phase, resolved
from metatune.recipe.schema import OuterSpec
from metatune.tunables.blocks import blocks


class Done(NamedTuple):
    """What a meta-update did.

    Attributes:
        penalty: on the meta-parameters that it moved away from.
        eta: where the outer optimizer led, before blocks that were merged took their mean.
        changes: blocks that were split or merged, as `Sharing.revise` tells of them.
        gated: by tunable the share of its values that noise held `still`, and of those that moved
            `together`; None without a gate.
    """

    penalty: float
    eta: Mapping[str, Any]
    changes: Sequence[dict[str, Any]] = ()
    gated: Mapping[str, Mapping[str, float]] | None = None


@dataclass(frozen=True, eq=False)
class MetaUpdate:
    """η_(k+1) from η_k and its hypergradient g: `optimizer(clip(shared(g + dP/dη)))`.

    Attributes:
        penalty: η to P(η) and dP/dη, compiled.
        sharing: how learning rates share values; None where each has its own.
        optimizers: that of each phase, clipping first, compiled.
        members: of a population whose members each have an optimizer; None for one in all.
        gate: what noise leaves of updates, compiled; None for all of them.
        decay: of the moving average of η; None for no average.
    """

    penalty: Callable[[Mapping[str, Any]], tuple[jax.Array, Any]]
    sharing: Sharing | None
    optimizers: Sequence[Callable[..., tuple[Any, Any]]]
    members: int | None
    gate: Callable[[Mapping[str, Any], Mapping[str, Any]], Gated] | None
    decay: float | None

    def __call__(
        self,
        search: Search,
        estimate: Hypergradient,
        kept: Mapping[str, np.ndarray] | None = None,
    ) -> tuple[Search, Done]:
        """Moves a search to its next point; what else it holds stays.

        Args:
            search: at η_k.
            estimate: of the hypergradient there.
            kept: by tunable, of its windows, what noise leaves of the optimizer's step, [windows];
                None for all. A gate tells by itself what it does, and rates that are shared over
                windows have no step of one.

        Returns:
            The search at η_(k+1), and what was done.
        """
        penalty, of_penalty = self.penalty(search.eta)
        gradient, counts, priced = estimate.gradient, {}, of_penalty
        if self.members is not None:
            gradient = estimate.diagnostics.members
            of_penalty = jax.tree.map(lambda leaf: leaf[None], of_penalty)
        gradient = jax.tree.map(jnp.add, gradient, of_penalty)
        if self.sharing:
            search = self.sharing.observe(search, gradient)
            gradient = self.sharing.sum_blocks(search, gradient)
            counts = {"counts": self.sharing.counts(search)}
        updates, opt_state = self.optimizers[search.phase](gradient, search.opt_state, **counts)
        held = None
        if self.gate is not None:
            several = estimate.diagnostics.members
            assert several is not None, "a gate is of a population"
            found = self.gate(updates, jax.tree.map(lambda g, p: g + p[None], several, priced))
            updates = found.updates
            held = {
                key: {"still": float(still), "together": float(found.together[key])}
                for key, still in found.still.items()
            }
        elif kept is not None and self.sharing is None:
            updates = {key: _scaled(step, kept.get(key)) for key, step in updates.items()}
        if search.trust:
            updates = optax.tree.scale(search.trust.scale, updates)
        eta: Any = optax.apply_updates(search.eta, updates)
        search = search._replace(step=search.step + 1, eta=eta, opt_state=opt_state)
        if self.decay is not None:
            average = outer_optimizers.averaged(search.average, eta, self.decay, search.step)
            search = search._replace(average=average)
        changes: Sequence[dict[str, Any]] = ()
        if self.sharing:
            search, changes = self.sharing.revise(search)
        return search, Done(float(penalty), eta, changes, held)


def _scaled(step: jax.Array, kept: np.ndarray | None) -> jax.Array:
    """An update of which each window keeps a part."""
    if kept is None:
        return step
    return step * jnp.asarray(kept, step.dtype).reshape(-1, *(1,) * (step.ndim - 1))


def meta_update(training: InnerTraining) -> MetaUpdate:
    """That of a recipe."""
    outer, shares = training.recipe.outer, sharing(training)
    priced = partial(tunables.penalty, training.tunables, deviation=outer.objective.deviation)
    return MetaUpdate(
        penalty=jax.jit(jax.value_and_grad(priced)),
        sharing=shares,
        optimizers=[
            jax.jit(optimizer(phase, outer, counted=shares is not None).update)
            for phase in resolved(outer)
        ],
        members=population.optimizers(outer),
        gate=_gate(training),
        decay=outer.ema,
    )


def _gate(
    training: InnerTraining,
) -> Callable[[Mapping[str, Any], Mapping[str, Any]], Gated] | None:
    together = training.recipe.outer.population
    if together is None or together.gate is None:
        return None
    pooled = frozenset(block.key for block in blocks(training.tunables) if not block.relative)
    return jax.jit(partial(gated, pooled=pooled, gate=together.gate))


def optimizer(phase: Phase, outer: OuterSpec, *, counted: bool) -> optax.GradientTransformation:
    """The outer optimizer of a phase, clipping first.

    Args:
        phase: of the search.
        outer: of the recipe.
        counted: whether updates take the `counts` of shared values.
    """
    return outer_optimizers.build(
        phase.optimizer,
        outer.clip_norm,
        outer.clip,
        population.optimizers(outer),
        counted=counted,
    )
