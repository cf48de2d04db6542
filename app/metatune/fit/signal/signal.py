"""Hypergradients whose early windows are noise, and what is followed there in their place.

The exact derivative is worth nothing where the adjoint has grown on its way back: it is that of
one chaotic trajectory. Those windows are told by their growth. Along one direction of each,
differences of whole trainings give the derivative of the smoothed objective, and both are blended;
what else the window's hypergradient says, such as how its groups differ, is shrunk by the exact
one's weight. An outer optimizer that divides by the size of gradients would move noise as far as
signal, so where growth is ten times that limit steps are shrunk by what is known of the slope.

Where outer steps enough are left it is measured first which way there is signal (`choice`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import jax.numpy as jnp
import numpy as np

from metatune.fit.searching.hypergradients import (
    OfOneTraining,
    OfPopulation,
    OfSizes,
    OuterStepTrainings,
)
from metatune.fit.searching.search import Search
from metatune.fit.searching.truncation import Span
from metatune.fit.signal.choice import FollowedWay, standing
from metatune.fit.signal.differences import slopes
from metatune.fit.signal.memory import SlopeMemory, blank, errors, kept, wanted, with_slope
from metatune.fit.signal.weighing import Weighing
from metatune.hypergrad import Hypergradient
from metatune.hypergrad.blending import ENOUGH, blend
from metatune.hypergrad.estimator import Listener
from metatune.hypergrad.population import standard_errors
from metatune.inner import InnerTraining
from metatune.inner.origin import origin
from metatune.recipe.phases import Phase
from metatune.recipe.schema import InnerSpec, MixFlowSpec, OnlineSpec, ReverseSpec, SignalSpec
from metatune.tunables.blocks import WindowBlock, blocks, growths

STILL: Final = 10.0
"""In the limit of growth, that from where steps are shrunk: below it a window's hypergradient still
tells its groups apart, and an optimizer makes of that what it makes of any."""


class Blended(NamedTuple):
    """What became of a block whose hypergradient was dominated by growth.

    Attributes:
        tunable: its key.
        window: from 0.
        growth: of the adjoint behind it; infinite for one that isn't finite.
        weight: of the exact derivative, 0 to 1.
        exact: the exact derivative along its direction; NaN where it isn't finite.
        smoothed: that by differences, of this outer step and of those before; zero where there has
            been none yet.
        measured: whether there are differences of this outer step.
        trainings: that these are of; 0 for none.
        errors: standard errors that the smoothed one is from zero; infinite where the noise isn't
            known.
        kept: of the outer step, 0 to 1.
    """

    tunable: str
    window: int
    growth: float
    weight: float
    exact: float
    smoothed: float
    measured: bool
    trainings: int
    errors: float
    kept: float

    def line(self) -> dict[str, Any]:
        """For the metrics: null for what isn't finite."""
        found = self._asdict()
        return {
            key: None if isinstance(value, float) and not np.isfinite(value) else value
            for key, value in found.items()
        }


class ToFollow(NamedTuple):
    """What an outer step follows.

    Attributes:
        search: with the differences in its memory.
        estimate: the hypergradient.
        told: for the metrics the `windows` that were blended, as of `Blended.line`, and their
            `origin`; None for none.
        kept: by tunable, of its windows, what is kept of the optimizer's step, [windows]; None for
            all of all steps.
        chosen: for the metrics the `way` that the hypergradient was found by, of how many
            `trainings`, and what was `measured` for it, as of `Weighing`; None for none.
    """

    search: Search
    estimate: Hypergradient
    told: dict[str, Any] | None = None
    kept: Mapping[str, np.ndarray] | None = None
    chosen: Mapping[str, Any] | None = None


@dataclass(frozen=True, eq=False)
class Signal:
    """Finds the blocks that growth dominates, and blends their hypergradients.

    Attributes:
        spec: what the recipe says.
        inner: what it says of the training.
        blocks: of what is tuned.
        trainings: of an outer step.
        listen: makes what is told how far the differences of a name are.
        seeds: trainings that differences of a block are of at most, where one is differentiated.
        weigh: measures which way to follow.
    """

    spec: SignalSpec
    inner: InnerSpec
    blocks: Sequence[WindowBlock]
    trainings: OuterStepTrainings
    listen: Callable[[str], Listener]
    seeds: int
    weigh: Weighing

    def __call__(
        self, search: Search, phase: Phase, span: Span, estimate: Hypergradient
    ) -> ToFollow:
        """The hypergradient to follow.

        Bit for bit the estimate where no block is dominated by growth.

        Args:
            search: where it stands.
            phase: the one that it is in.
            span: the inner steps that are differentiated.
            estimate: of the hypergradient, exact.
        """
        growth = estimate.diagnostics.growth
        backward = isinstance(phase.estimator, MixFlowSpec | ReverseSpec)
        if growth is None or not backward or isinstance(phase.unroll, OnlineSpec):
            return ToFollow(search, estimate)
        grown = growths(growth, self.blocks, span.steps)
        noisy = [i for i, times in enumerate(grown) if times >= self.spec.growth]
        chosen = standing(search, phase, span.steps)
        by: Mapping[str, Any] | None = None
        if chosen is not None and chosen.active:
            by = {"way": chosen.way, "trainings": chosen.trainings}
        if not noisy:
            return ToFollow(_put(search, chosen, active=False), estimate, chosen=by)
        found: Mapping[int, np.ndarray] = {}
        directions: Mapping[int, Any] = {}
        why_not = self.weigh.why_not(search, phase, span) if chosen is None else ""
        if chosen is None and not why_not:
            estimate, chosen, directions, found, by = self.weigh(
                search, phase, span, estimate, grown, noisy
            )
        carried = chosen.carries(grown) if chosen and by else frozenset[int]()
        members = _members(estimate, {self.blocks[i].key for i in noisy})
        if not found:
            directions = {i: self._direction(self.blocks[i], members) for i in noisy}
            turn = self._turn(search, directions, carried, chosen, len(members))
            found = self._slopes(search, phase, span, turn, len(members), grown)
            if chosen is not None:
                spent = 2 * sum(len(each) for each in found.values())
                chosen = chosen._replace(spent=chosen.spent + spent)
        memory, told = search.signal, []
        for i in noisy:
            slope, direction, slopes_of = None, directions.get(i), found.get(i)
            if slopes_of is not None and direction is not None:
                memory, slope = with_slope(
                    memory, self.blocks, i, search.step, direction, slopes_of
                )
            told.append(
                self._blend(i, grown[i], direction, members, slopes_of, slope, memory, i in carried)
            )
        born = origin(self.inner, growth, self.spec.growth, span.steps)
        why = {"unmeasured": why_not} if why_not else {}
        return ToFollow(
            _put(search._replace(signal=memory), chosen, active=True),
            _with(estimate, members),
            {"windows": [each.line() for each in told], "origin": born, **why},
            self._kept(told),
            by,
        )

    def _turn(
        self,
        search: Search,
        directions: Mapping[int, Any],
        carried: frozenset[int],
        chosen: FollowedWay | None,
        members: int,
    ) -> dict[int, Any]:
        """The directions whose differences are taken: those that have waited longest."""
        known = [i for i in directions if directions[i] is not None and i not in carried]
        most = self.spec.pairs
        if chosen is not None:
            most = min(most, chosen.pairs(search.step, max(members, self.seeds)))
        turn = sorted(known, key=lambda i: (int(search.signal.measured[i]), i))[:most]
        return {i: directions[i] for i in turn}

    def _kept(self, told: Sequence[Blended]) -> dict[str, np.ndarray]:
        """Of each window of tunables with noise."""
        found: dict[str, np.ndarray] = {}
        for each in told:
            windows = sum(block.key == each.tunable for block in self.blocks)
            found.setdefault(each.tunable, np.ones(windows))[each.window] = each.kept
        return found

    def _doubt(self, growth: float) -> float:
        """How far a step is taken for noise but for what its slope is known to be, 0 to 1."""
        return 1 - 1 / (1 + (growth / (STILL * self.spec.growth)) ** 2)

    def _is_noise(self, growth: float) -> bool:
        return growth >= STILL * self.spec.growth

    def _direction(
        self, block: WindowBlock, members: Sequence[Mapping[str, np.ndarray]]
    ) -> np.ndarray | None:
        return block.direction(np.mean([block.row(each) for each in members], axis=0))

    def _slopes(
        self,
        search: Search,
        phase: Phase,
        span: Span,
        directions: Mapping[int, Any],
        members: int,
        grown: Sequence[float] | np.ndarray,
    ) -> dict[int, np.ndarray]:
        """The slopes of the smoothed objective of each training, [trainings]; where they stayed.

        Of a population these are its members; of a single training it, and where steps are shrunk
        others of its kind, as many as the block needs.
        """
        counts = dict.fromkeys(directions, members)
        if members == 1:
            counts = {
                i: wanted(search.signal, self.blocks, i, self.seeds)
                if self._is_noise(grown[i])
                else 1
                for i in directions
            }
        trainings, options = self.trainings(
            search, phase, span, beside=max(counts.values(), default=1) - 1
        )
        found: dict[int, np.ndarray] = {}
        for i, direction in directions.items():
            each = slopes(
                trainings[: counts[i]],
                options,
                self.blocks[i],
                direction,
                step=self.spec.step,
                listen=self.listen,
            )
            if each is not None:
                found[i] = each
        return found

    def _blend(
        self,
        number: int,
        growth: float,
        direction: np.ndarray | None,
        members: list[dict[str, np.ndarray]],
        found: np.ndarray | None,
        slope: float | None,
        memory: SlopeMemory,
        carried: bool,
    ) -> Blended:
        """Puts what is followed into the members' hypergradients, in place.

        Args:
            number: the block's.
            growth: of the adjoint behind it.
            direction: of its differences; None where the hypergradient says none.
            members: the hypergradients, of each training.
            found: slopes of this outer step; None for none.
            slope: as it is known now; None where there are none of this outer step.
            memory: with these.
            carried: whether the hypergradient was measured to tell the block.
        """
        block, count = self.blocks[number], len(members)
        rows = np.stack([block.row(each) for each in members])
        finite = bool(np.isfinite(rows).all())
        along = np.zeros(rows.shape[1]) if direction is None else direction
        square = float(along @ along)
        exact = rows @ along if finite else np.full(count, np.nan)
        followed = block.row(memory.slopes)
        smoothed = np.full(count, followed @ along if slope is None else slope)
        if found is not None and count > 1:
            smoothed += found - found.mean()  # each of a population its own
        if not finite:
            weight = 0.0
        elif carried:
            weight = 1.0
        elif found is not None and count >= ENOUGH:
            weight = float(blend(exact[:, None], smoothed[:, None])[1][0])
        else:
            weight = 1 / (1 + (growth / self.spec.growth) ** 2)
        for each, row, its in zip(members, rows, smoothed, strict=True):
            exactly = weight * row if weight else np.zeros_like(row)
            if found is not None:
                followed = its / square * along
            each[block.key] = block.put(each, exactly + (1 - weight) * followed)[block.key]
        return Blended(
            block.key,
            block.window,
            growth,
            weight,
            float(exact.mean()),
            float(smoothed.mean()),
            found is not None,
            0 if found is None else len(found),
            errors(memory, self.blocks, number),
            1.0 if carried else 1 - (1 - kept(memory, self.blocks, number)) * self._doubt(growth),
        )


def signal(
    training: InnerTraining,
    source: OfOneTraining | OfPopulation | OfSizes,
    listen: Callable[[str], Listener],
) -> Signal | None:
    """That of a recipe; None where it is off, or nothing is windowed.

    Args:
        training: what is tuned.
        source: of hypergradients.
        listen: makes what is told how far the differences of a name are.
    """
    found, spec = blocks(training.tunables), training.recipe.outer.signal
    if spec == "off" or not found:
        return None
    given = SignalSpec() if spec == "auto" else spec
    fresh = training.recipe.outer.fresh
    seeds = given.seeds if fresh.initialisation or fresh.data else 1
    weigh = Weighing(training, given, found, source, listen)
    return Signal(given, training.recipe.inner, found, source.trainings, listen, seeds, weigh)


def memory(training: InnerTraining) -> SlopeMemory | tuple[()]:
    """Of a search that begins; () where there is nothing to remember."""
    found = blocks(training.tunables)
    if training.recipe.outer.signal == "off" or not found:
        return ()
    return blank(found, training.initial_eta())


def _put(search: Search, chosen: FollowedWay | None, *, active: bool) -> Search:
    """The search with what it follows from here on; itself where nothing was chosen."""
    if chosen is None:
        return search
    return search._replace(choice=chosen._replace(active=active)._asdict())


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
