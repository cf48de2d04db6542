"""Schedules of domains as stages, each with constant values, for trainers that know only these."""

from typing import NamedTuple

import numpy as np

from metatune.artefact.curves import STEP_TOLERANCE, value_at
from metatune.artefact.sections.loss_weights import LossWeights
from metatune.artefact.sections.mixture import Mixture

PIECES = 8
"""Stages that a line between two knots is cut into."""


class Stage(NamedTuple):
    """A stretch of training with one value for each domain.

    Attributes:
        start: its first update, from 0.
        values: by domain.
    """

    start: int
    values: dict[str, float]


class Stages(NamedTuple):
    """A schedule cut into stages.

    Attributes:
        stages: the first starts at update 0; starts increase.
        deviation: how far a value is from the schedule at any update, at most.
    """

    stages: tuple[Stage, ...]
    deviation: float

    def lost(self) -> list[str]:
        """What an export says of it, a line; none where it is exact."""
        if not self.deviation:
            return []
        return [f"shares are constant in each stage: off by up to {self.deviation:.3g} within one"]


def staged(schedule: Mixture | LossWeights, steps: int) -> Stages:
    """Cuts a schedule over `steps` updates into stages; exact where knots are constant."""
    knots, weights = schedule.knots, schedule.weights
    starts = {0}
    for before, after in zip(knots, (*knots[1:], None), strict=True):
        pieces = PIECES if schedule.interpolation == "linear" and after is not None else 1
        span = (after or 1.0) - before
        starts |= {_first_update(before + span * i / pieces, steps) for i in range(pieces)}
    edges = [*sorted(start for start in starts if start < steps), steps]
    stages: list[Stage] = []
    deviation = 0.0
    for start, end in zip(edges, edges[1:], strict=False):
        rows = np.stack(
            [value_at(knots, weights, schedule.interpolation, t, steps) for t in (start, end - 1)]
        )
        row = rows.mean(axis=0)
        deviation = max(deviation, float(np.abs(rows - row).max()))
        values = dict(zip(schedule.domains, row.tolist(), strict=True))
        if not stages or stages[-1].values != values:
            stages.append(Stage(start, values))
    return Stages(tuple(stages), deviation)


def moves(schedule: Mixture | LossWeights, steps: int) -> bool:
    """Whether the values change over training."""
    cut = staged(schedule, steps)
    return len(cut.stages) > 1 or cut.deviation > 0


def averaged(schedule: Mixture | LossWeights, steps: int) -> dict[str, float]:
    """The mean over training of each domain's value."""
    stages = staged(schedule, steps).stages
    ends = [*(stage.start for stage in stages[1:]), steps]
    return {
        domain: sum(
            stage.values[domain] * (end - stage.start)
            for stage, end in zip(stages, ends, strict=True)
        )
        / steps
        for domain in schedule.domains
    }


def _first_update(fraction: float, steps: int) -> int:
    """The first update at or after a fraction of training, as `value_at` counts."""
    return int(np.ceil(fraction * steps - STEP_TOLERANCE))
