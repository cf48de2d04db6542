"""The points of a search: the meta-parameters after k updates, and what is recorded at each.

Point 0 is the recipe's own, point k what k outer steps have led to. Every line on the screen, in
the metrics and in TensorBoard, the best point of an artefact too, counts in this k. Each point but
the last takes an outer step, to the next.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from metatune.fit.searching.judging import Judgement
from metatune.inner import InnerTraining
from metatune.tunables import LearningRates

Line = Mapping[str, Any]
"""A line of the metrics, as it is read back: that of an older version may lack what is new."""


class OuterStep(NamedTuple):
    """The outer step from a point.

    Attributes:
        inner_steps: that it differentiates.
        objective: the held-out loss after them.
        penalty: on the meta-parameters.
        hypergradient_norm: by tunable, without the penalty's.
        inner_loss: of the last inner step; None where training is done elsewhere.
        moved: how far learning rates and shares went, as `still_moving.moved` measures it.
        spread: `standard_error` and `signal` by tunable, of a population; of others nothing.
        jumps: of norms, as `jumps.jumps` finds them.
        lost_directions: of an external trainer; None where training is done here.
        sharing: what is shared after the step, and what has changed; None where nothing is.
    """

    inner_steps: int
    objective: float
    penalty: float
    hypergradient_norm: Mapping[str, float]
    inner_loss: float | None
    moved: Mapping[str, float]
    spread: Mapping[str, Any]
    jumps: Mapping[str, Mapping[str, Any]] = {}
    lost_directions: int | None = None
    sharing: Mapping[str, Any] | None = None


class Point(NamedTuple):
    """What is recorded at a point.

    Attributes:
        step: outer steps that led to it.
        phase: number of the phase that it is in.
        judgement: held-out losses there.
        best_held_out: the least so far, judged or not.
        seconds: that the point has taken, the step from it included.
        taken: the step from it; None of the last point.
    """

    step: int
    phase: int
    judgement: Judgement
    best_held_out: float
    seconds: float
    taken: OuterStep | None = None

    def with_jumps(self, found: Mapping[str, Mapping[str, Any]]) -> "Point":
        """The same with jumps of the norms of its outer step."""
        return self._replace(taken=self.taken and self.taken._replace(jumps=found))

    def line(self) -> dict[str, Any]:
        """The point as a line of the metrics; null for what isn't a number."""
        held_out, of_average = self.judgement
        step = self.taken
        line: dict[str, Any] = {"step": self.step, "phase": self.phase}
        if step is not None:
            line |= {
                "inner_steps": step.inner_steps,
                "objective": step.objective,
                "penalty": step.penalty,
                "hypergradient_norm": dict(step.hypergradient_norm),
                **step.spread,
                "inner_loss": step.inner_loss,
                "moved": dict(step.moved),
            }
        line["held_out"] = _finite(held_out)
        line["best_held_out"] = self.best_held_out
        line["seconds"] = self.seconds
        if of_average is not None:
            line["held_out_average"] = _finite(of_average)
        if step is not None and step.jumps:
            line["jumps"] = dict(step.jumps)
        if step is not None and step.lost_directions is not None:
            line["lost_directions"] = step.lost_directions
        if step is not None and step.sharing is not None:
            line["sharing"] = dict(step.sharing)
        return line


def taken(lines: Sequence[Line]) -> list[Line]:
    """The lines of those points that an outer step was taken from, of all lines of the metrics."""
    return [line for line in lines if "objective" in line]


def rate_factors(training: InnerTraining, eta: Mapping[str, Any]) -> tuple[float, float] | None:
    """The least and the largest multiplier of a learning rate; None where rates aren't tuned."""
    rates = {tunable.key: tunable for tunable in training.tunables}.get("learning_rates")
    if not isinstance(rates, LearningRates):
        return None
    multipliers = rates.multipliers(np.asarray(eta[rates.key]))
    return float(multipliers.min()), float(multipliers.max())


def _finite(loss: float) -> float | None:
    return loss if math.isfinite(loss) else None
