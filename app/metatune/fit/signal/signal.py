"""Hypergradients whose early windows are noise, and what is followed there in their place.

The exact derivative is worth nothing where the adjoint has grown on its way back: it is that of
one chaotic trajectory. Those windows are told by their growth. Along one direction of each,
differences of whole trainings give the derivative of the smoothed objective, and both are blended;
what else the window's hypergradient says, such as how its groups differ, is shrunk by the exact
one's weight.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from metatune.fit.searching.hypergradients import Trainings
from metatune.fit.searching.search import Search
from metatune.fit.searching.truncation import Span
from metatune.hypergrad import Hypergradient
from metatune.hypergrad.blending import ENOUGH, blend
from metatune.hypergrad.estimator import Listener
from metatune.hypergrad.population import standard_errors
from metatune.hypergrad.smoothing import smoothed_slope
from metatune.inner import InnerTraining
from metatune.inner.origin import origin
from metatune.recipe.phases import Phase
from metatune.recipe.schema import InnerSpec, MixFlowSpec, OnlineSpec, ReverseSpec, SignalSpec
from metatune.tunables.blocks import WindowBlock, blocks, growths


class Blended(NamedTuple):
    """What became of a block whose hypergradient was dominated by growth.

    Attributes:
        tunable: its key.
        window: from 0.
        growth: of the adjoint behind it; infinite for one that isn't finite.
        weight: of the exact derivative, 0 to 1.
        exact: the exact derivative along its direction; NaN where it isn't finite.
        smoothed: that by differences; zero where there has been none yet.
        measured: whether the differences are of this outer step, not of one before.
    """

    tunable: str
    window: int
    growth: float
    weight: float
    exact: float
    smoothed: float
    measured: bool

    def line(self) -> dict[str, Any]:
        """For the metrics: null for what isn't finite."""
        found = self._asdict()
        return {
            key: None if isinstance(value, float) and not np.isfinite(value) else value
            for key, value in found.items()
        }


class SlopeMemory(NamedTuple):
    """What a search keeps of the differences of before.

    Attributes:
        slopes: by tunable what the latest differences say, in the place of its hypergradient,
            float32: a direction belongs to its outer step. Zero for none.
        measured: the outer step that it is of, [blocks] int32; -1 for none.
    """

    slopes: Mapping[str, jax.Array]
    measured: jax.Array


@dataclass(frozen=True, eq=False)
class Signal:
    """Finds the blocks that growth dominates, and blends their hypergradients.

    Attributes:
        spec: what the recipe says.
        inner: what it says of the training.
        blocks: of what is tuned.
        trainings: of an outer step.
        listen: makes what is told how far the differences of a name are.
    """

    spec: SignalSpec
    inner: InnerSpec
    blocks: Sequence[WindowBlock]
    trainings: Trainings
    listen: Callable[[str], Listener]

    def __call__(
        self, search: Search, phase: Phase, span: Span, estimate: Hypergradient
    ) -> tuple[Search, Hypergradient, dict[str, Any] | None]:
        """The hypergradient to follow.

        Bit for bit the estimate where no block is dominated by growth.

        Args:
            search: where it stands.
            phase: the one that it is in.
            span: the inner steps that are differentiated.
            estimate: of the hypergradient, exact.

        Returns:
            The search with the differences in its memory, the hypergradient, and for the metrics
            the `windows` that were blended, as of `Blended.line`, and their `origin`; None for
            none.
        """
        growth = estimate.diagnostics.growth
        backward = isinstance(phase.estimator, MixFlowSpec | ReverseSpec)
        if growth is None or not backward or isinstance(phase.unroll, OnlineSpec):
            return search, estimate, None
        grown = growths(growth, self.blocks, span.steps)
        noisy = [i for i, times in enumerate(grown) if times >= self.spec.growth]
        if not noisy:
            return search, estimate, None
        members = _members(estimate, {self.blocks[i].key for i in noisy})
        directions = {i: self._direction(self.blocks[i], members) for i in noisy}
        known = [i for i in noisy if directions[i] is not None]
        turn = sorted(known, key=lambda i: (int(search.signal.measured[i]), i))[: self.spec.pairs]
        slopes = self._slopes(search, phase, span, {i: directions[i] for i in turn})
        told = [
            self._blend(i, grown[i], directions[i], members, slopes.get(i), search).line()
            for i in noisy
        ]
        born = origin(self.inner, growth, self.spec.growth, span.steps)
        return (
            search._replace(signal=self._remembered(search, slopes, directions)),
            _with(estimate, members),
            {"windows": told, "origin": born},
        )

    def _remembered(
        self, search: Search, slopes: Mapping[int, np.ndarray], directions: Mapping[int, Any]
    ) -> SlopeMemory:
        """The memory with the slopes of this outer step, in the mean over members."""
        known: dict[str, Any] = dict(search.signal.slopes)
        measured = search.signal.measured
        for i, found in slopes.items():
            along = directions[i]
            known = self.blocks[i].put(known, found.mean() / (along @ along) * along)
            measured = measured.at[i].set(search.step)
        return SlopeMemory({key: jnp.asarray(leaf) for key, leaf in known.items()}, measured)

    def _direction(
        self, block: WindowBlock, members: Sequence[Mapping[str, np.ndarray]]
    ) -> np.ndarray | None:
        return block.direction(np.mean([block.row(each) for each in members], axis=0))

    def _slopes(
        self, search: Search, phase: Phase, span: Span, directions: Mapping[int, Any]
    ) -> dict[int, np.ndarray]:
        """The slopes of the smoothed objective, [M] of each block; those where training stayed."""
        trainings, options = self.trainings(search, phase, span)
        zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), dict(search.eta))
        found: dict[int, np.ndarray] = {}
        for i, direction in directions.items():
            along = self.blocks[i].put(zeros, direction)
            of_each = [
                smoothed_slope(
                    options["problem"] if each.problem is None else each.problem,
                    search.eta,
                    along,
                    each.begin(),
                    each.batches,
                    options["outer_batches"],
                    step=self.spec.step,
                    steps=span.steps,
                    points=options["points"],
                    segment=options["estimator"].segment,
                    listener=self.listen(f"differences, {self.blocks[i].name}"),
                )
                for each in trainings
            ]
            if None not in of_each:
                found[i] = np.asarray(of_each, np.float64)
        return found

    def _blend(
        self,
        number: int,
        growth: float,
        direction: np.ndarray | None,
        members: list[dict[str, np.ndarray]],
        slopes: np.ndarray | None,
        search: Search,
    ) -> Blended:
        """Puts what is followed into the members' hypergradients, in place."""
        block, count = self.blocks[number], len(members)
        rows = np.stack([block.row(each) for each in members])
        finite = bool(np.isfinite(rows).all())
        along = np.zeros(rows.shape[1]) if direction is None else direction
        square = float(along @ along)
        exact = rows @ along if finite else np.full(count, np.nan)
        followed = block.row(search.signal.slopes)
        smoothed = np.full(count, followed @ along) if slopes is None else slopes
        if not finite:
            weight = 0.0
        elif slopes is not None and count >= ENOUGH:
            weight = float(blend(exact[:, None], slopes[:, None])[1][0])
        else:
            weight = 1 / (1 + (growth / self.spec.growth) ** 2)
        for each, row, its in zip(members, rows, smoothed, strict=True):
            kept = weight * row if weight else np.zeros_like(row)
            if slopes is not None:
                followed = its / square * along
            each[block.key] = block.put(each, kept + (1 - weight) * followed)[block.key]
        return Blended(
            block.key,
            block.window,
            growth,
            weight,
            float(exact.mean()),
            float(smoothed.mean()),
            slopes is not None,
        )


def signal(
    training: InnerTraining, trainings: Trainings, listen: Callable[[str], Listener]
) -> Signal | None:
    """That of a recipe; None where it is off, or nothing is windowed.

    Args:
        training: what is tuned.
        trainings: of an outer step.
        listen: makes what is told how far the differences of a name are.
    """
    found, spec = blocks(training.tunables), training.recipe.outer.signal
    if spec == "off" or not found:
        return None
    chosen = SignalSpec() if spec == "auto" else spec
    return Signal(chosen, training.recipe.inner, found, trainings, listen)


def memory(training: InnerTraining) -> SlopeMemory | tuple[()]:
    """Of a search that begins; () where there is nothing to remember."""
    found = blocks(training.tunables)
    if training.recipe.outer.signal == "off" or not found:
        return ()
    keys, eta = sorted({each.key for each in found}), training.initial_eta()
    slopes = {key: jnp.zeros(eta[key].shape, jnp.float32) for key in keys}
    return SlopeMemory(slopes, jnp.full(len(found), -1, jnp.int32))


def _members(estimate: Hypergradient, keys: set[str]) -> list[dict[str, np.ndarray]]:
    """What the hypergradient of each training has of some tunables."""
    several = estimate.diagnostics.members
    if several is None:
        return [{key: np.asarray(estimate.gradient[key]) for key in keys}]
    stacked = {key: np.asarray(several[key]) for key in keys}
    count = len(next(iter(stacked.values())))
    return [{key: leaf[number] for key, leaf in stacked.items()} for number in range(count)]


def _with(estimate: Hypergradient, members: Sequence[Mapping[str, np.ndarray]]) -> Hypergradient:
    """The estimate with what is followed of some tunables, in the types that it had."""
    stacked = {
        key: jnp.asarray(np.stack([each[key] for each in members]), estimate.gradient[key].dtype)
        for key in members[0]
    }
    mean = {key: jnp.mean(leaf, axis=0) for key, leaf in stacked.items()}
    found = estimate._replace(gradient={**estimate.gradient, **mean})
    several = estimate.diagnostics.members
    if several is None:
        return found
    stacked = {**several, **stacked}
    diagnostics = estimate.diagnostics._replace(
        members=stacked, standard_errors=standard_errors(stacked)
    )
    return found._replace(diagnostics=diagnostics)
