"""The points of a search: the meta-parameters after k updates, and what is recorded at each.

Point 0 is the recipe's own, point k what k outer steps have led to. Every line on the screen, in
the metrics and in TensorBoard, the best point of an artefact too, counts in this k. Each point but
the last takes an outer step, to the next.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from metatune.fit.searching.validation import Validated
from metatune.inner import InnerTraining
from metatune.tunables import TunableLearningRates

Line = Mapping[str, Any]
"""A line of the metrics, as it is read back: that of an older version may lack what is new."""


class OuterStep(NamedTuple):
    """The outer step from a point; what is None but for `inner_loss` has no place in its line.

    Attributes:
        inner_steps: that it differentiates.
        objective: the held-out loss after them.
        penalty: on the meta-parameters.
        objective_sizes: the objective of each size of `outer.robust`, by its name; None of one.
        hypergradient_norm: by tunable, without the penalty's.
        inner_loss: of the last inner step; None where training is done elsewhere.
        window_norm: of the hypergradient in each window, by tunable that has any.
        moved: how far learning rates and shares went, as `still_moving.moved` measures it.
        standard_error: of a population's hypergradient, by tunable.
        signal: of a population, by tunable.
        gated: shares of a population's values that noise holds still, or that move together, by
            tunable.
        jumps: of norms, by tunable, as `jumps.jumps` finds them.
        lost_directions: of differences between trainings, that are left out.
        diverged_sides: trainings of such differences whose loss isn't finite.
        sharing: what is shared after the step, and what has changed.
        growth: of the adjoint or of tangents, as of `growth.growth_line`; None where there is none.
        blended: what became of hypergradients that growth dominated, as of `Blended.line`; None
            where none was.
        chosen: by which way the hypergradient was found, of how many trainings, and what was
            measured for it, as of `ToFollow`; None where nothing was chosen.
        taken_back: the steps before it, as of `trust.TakenBack`; None where none were.
    """

    inner_steps: int
    objective: float
    penalty: float
    hypergradient_norm: Mapping[str, float]
    inner_loss: float | None
    moved: Mapping[str, float]
    objective_sizes: Mapping[str, float] | None = None
    window_norm: Mapping[str, list[float | None]] | None = None
    standard_error: Mapping[str, float] | None = None
    signal: Mapping[str, Mapping[str, float | None]] | None = None
    gated: Mapping[str, Mapping[str, float]] | None = None
    jumps: Mapping[str, Mapping[str, Any]] | None = None
    lost_directions: int | None = None
    diverged_sides: int | None = None
    sharing: Mapping[str, Any] | None = None
    growth: Mapping[str, Any] | None = None
    blended: Mapping[str, Any] | None = None
    chosen: Mapping[str, Any] | None = None
    taken_back: Mapping[str, Any] | None = None


class SearchPoint(NamedTuple):
    """What is recorded at a point.

    Attributes:
        step: outer steps that led to it.
        phase: number of the phase that it is in.
        validated: held-out losses there.
        best_held_out: the least so far.
        seconds: that the point has taken, the step from it included.
        taken: the step from it; None of the last point.
        diverged: where a training did, as of `NotFinite.line`; None where none did.
        ended: whether the search ended by that: at a point without an outer step.
    """

    step: int
    phase: int
    validated: Validated
    best_held_out: float
    seconds: float
    taken: OuterStep | None = None
    diverged: Mapping[str, Any] | None = None
    ended: bool = False

    def line(self) -> dict[str, Any]:
        """The point as a line of the metrics; null for a loss that isn't a finite number."""
        taken = self.taken._asdict() if self.taken else {}
        held_out, of_average, each, sizes, _ = self.validated
        return {
            "step": self.step,
            "phase": self.phase,
            **{key: v for key, v in taken.items() if v is not None or key == "inner_loss"},
            "held_out": _finite(held_out),
            **({"held_out_each": list(each)} if each else {}),
            **({"held_out_sizes": dict(sizes)} if sizes else {}),
            "best_held_out": _finite(self.best_held_out),
            "seconds": self.seconds,
            **({} if of_average is None else {"held_out_average": _finite(of_average)}),
            **({"diverged": dict(self.diverged)} if self.diverged else {}),
            **({"ended": True} if self.ended else {}),
        }


def taken(lines: Sequence[Line]) -> list[Line]:
    """The lines of those points that an outer step was taken from, of all lines of the metrics."""
    return [line for line in lines if "objective" in line]


def rate_factors(training: InnerTraining, eta: Mapping[str, Any]) -> tuple[float, float] | None:
    """The least and the largest multiplier of a learning rate; None where rates aren't tuned."""
    rates = {tunable.key: tunable for tunable in training.tunables}.get("learning_rates")
    if not isinstance(rates, TunableLearningRates):
        return None
    multipliers = rates.multipliers(np.asarray(eta[rates.key]))
    return float(multipliers.min()), float(multipliers.max())


def _finite(loss: float) -> float | None:
    return loss if math.isfinite(loss) else None
