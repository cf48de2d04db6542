"""Weighs the ways to follow at an outer step: some trainings by each, and their differences."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from metatune.fit.searching.hypergradients import OfOneTraining, OfPopulation, OfSizes
from metatune.fit.searching.search import Search
from metatune.fit.searching.truncation import Span
from metatune.fit.signal.choice import Evidence, FollowedWay, by_way, choose, left, told
from metatune.fit.signal.differences import slopes
from metatune.hypergrad import Hypergradient
from metatune.hypergrad.estimator import Listener
from metatune.hypergrad.population import standard_errors
from metatune.inner import InnerTraining
from metatune.inner.choosing import WAYS, affordable, hypergradients, why_not
from metatune.inner.estimators import gradients
from metatune.recipe.phases import Phase
from metatune.recipe.schema import MixFlowSpec, SignalSpec
from metatune.tunables.blocks import Row, WindowBlock


class Weighed(NamedTuple):
    """What a measurement came to.

    Attributes:
        estimate: of the hypergradient, by the way that was chosen, the mean over all trainings.
        chosen: what is followed from here on.
        directions: of the blocks whose differences were measured, [n] each.
        slopes: of these, of each training, [M].
        line: for the metrics, plain JSON values.
    """

    estimate: Hypergradient
    chosen: FollowedWay
    directions: Mapping[int, Row]
    slopes: Mapping[int, Row]
    line: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Weighing:
    """Measures, once for a horizon, where there is something to choose.

    Attributes:
        training: what is tuned.
        spec: what the recipe says.
        blocks: of what is tuned.
        source: of hypergradients.
        listen: makes what is told how far the differences of a name are.
    """

    training: InnerTraining
    spec: SignalSpec
    blocks: Sequence[WindowBlock]
    source: OfOneTraining | OfPopulation | OfSizes
    listen: Callable[[str], Listener]

    def why_not(self, search: Search, phase: Phase, span: Span) -> str:
        """Why nothing is chosen here, in words; empty where something may be."""
        recipe = self.training.recipe
        there = left(recipe, phase, search, span.steps)
        return why_not(recipe.outer, phase, self.spec, there)

    def __call__(
        self,
        search: Search,
        phase: Phase,
        span: Span,
        estimate: Hypergradient,
        grown: Row,
        dominated: Sequence[int],
    ) -> Weighed:
        """Measures, and chooses.

        Args:
            search: where it stands; `why_not` says nothing.
            phase: the one that it is in.
            span: the inner steps that are differentiated.
            estimate: of the hypergradient, exact, of one training.
            grown: the adjoint's growth behind each block, [blocks].
            dominated: the numbers of the blocks that growth dominates.
        """
        source, estimator = self.source, phase.estimator
        assert isinstance(source, OfOneTraining) and isinstance(estimator, MixFlowSpec)
        per_step = gradients(estimator)
        there = left(self.training.recipe, phase, search, span.steps)
        paid = affordable(self.spec, there, per_step)
        assert paid is not None, "nothing can be measured, as `why_not` says"
        count, most_blocks = paid
        found = {"exact": _joined(estimate, source.several(search, phase, span, range(1, count)))}
        for way in WAYS:
            if way not in found:
                damped = by_way(phase, way)
                found[way] = source.several(search, damped, span, range(count))
        directions = self._directions(found, dominated)
        # The earliest windows first: growth is largest behind them.
        turn = sorted(
            set(directions) & set(dominated), key=lambda number: (self.blocks[number].first, number)
        )[:most_blocks]
        trainings, options = source.trainings(search, phase, span, beside=count - 1)
        differences: dict[int, Row] = {}
        for number in turn:
            where, along = self.blocks[number], directions[number]
            by, listen = self.spec.step, self.listen
            each = slopes(trainings, options, where, along, step=by, listen=listen)
            if each is not None:
                differences[number] = each
        evidence = []
        for number, direction in directions.items():
            ways = {way: self._rows(one, number) @ direction for way, one in found.items()}
            truth = differences.get(number) if number in dominated else ways["exact"]
            if truth is not None:
                evidence.append(Evidence(number, number in dominated, truth, ways))
        spent = hypergradients(count) * per_step + 2 * count * len(turn)
        spare = (self.spec.cost - 1) * there * per_step - spent
        more = int(spare // (per_step * (there - 1))) if there > 1 else 0
        way, several, carried = choose(evidence, 1 + more)
        spare -= (several - 1) * (there - 1) * per_step
        chosen = FollowedWay(
            phase.number,
            span.steps,
            search.step,
            search.step + there,
            way,
            several,
            list(carried),
            [min(float(grown[number]), sys.float_info.max) for number in carried],
            spare,
        )
        plain = there * per_step
        alone = not set(dominated) - set(carried)
        line = {
            "way": way,
            "trainings": several,
            "measured": {
                "trainings": count,
                "hypergradients": hypergradients(count) + 1,
                "outer_steps": there,
                "times": self.spec.cost - spare / plain if alone else self.spec.cost,
                "carried": [_name(self.blocks[number]) for number in carried],
                "differences": [
                    _name(self.blocks[number]) for number in dominated if number not in carried
                ],
                "windows": [_name(self.blocks[each.number]) | told(each) for each in evidence],
            },
        }
        # One by the plain way is what there is: with no other is it drowned by others' noise.
        followed = estimate if (way, several, carried) == ("exact", 1, ()) else found[way]
        measured = {number: directions[number] for number in turn}
        return Weighed(followed, chosen, measured, differences, line)

    def _directions(
        self, found: Mapping[str, Hypergradient], dominated: Sequence[int]
    ) -> dict[int, Row]:
        """By the number of a block: where growth dominates as the damped one has it, else exact."""
        directions = {}
        for number, block in enumerate(self.blocks):
            rows = self._rows(found["damped" if number in dominated else "exact"], number)
            if (direction := block.direction(rows.mean(axis=0))) is not None:
                directions[number] = direction
        return directions

    def _rows(self, estimate: Hypergradient, number: int) -> np.ndarray:
        """A block's part of the hypergradient of each training, [M, n]."""
        members, block = estimate.diagnostics.members, self.blocks[number]
        assert members is not None, "several trainings"
        return np.stack([block.row({block.key: each}) for each in np.asarray(members[block.key])])


def _name(block: WindowBlock) -> dict[str, Any]:
    return {"tunable": block.key, "window": block.window}


def _joined(first: Hypergradient, others: Hypergradient) -> Hypergradient:
    """The mean of one training and of others; how the adjoint grew is that of the first."""
    seen = others.diagnostics
    members = jax.tree.map(
        lambda one, rest: jnp.concatenate([one[None], rest]),
        dict(first.gradient),
        dict(seen.members or {}),
    )
    values = jnp.concatenate([jnp.reshape(first.value, 1), jnp.asarray(seen.values)])
    diagnostics = first.diagnostics._replace(
        members=members, standard_errors=standard_errors(members), values=values
    )
    mean = jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), members)
    return first._replace(value=jnp.mean(values), gradient=mean, diagnostics=diagnostics)
