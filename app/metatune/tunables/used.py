"""What a training uses at some meta-parameters: what the sections of an artefact are made of."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple, TypedDict

import numpy as np
from jaxtyping import Float, Float64, Int

from metatune.artefact.curves import fractions, where_changed
from metatune.recipe import schema
from metatune.tunables.hyper import Hyper

Curve = Float64[np.ndarray, "steps"]
"""A number of every inner step."""


class Trajectory(NamedTuple):
    """The hyperparameters of every inner step, float32 numbers held as float64.

    Attributes:
        learning_rates: absolute rate of each update by checkpoint name; where rates are tuned
            within parameters, those that their multipliers are of.
        mixture: shares of the domains; rows sum to one in float64.
        loss_weights: weights of the domains' losses; rows average one.
        class_weights: weights of the tokens' losses by their `TokenClasses`; None where none are
            tuned.
        optimizer: numbers of the optimizer that are tuned, by name; of weight decay a mapping by
            checkpoint name, of what decays.
        loss_terms: coefficients of the terms of the loss, tuned or not, by name.
        hyper: all λ_t as the training has them, stacked.
    """

    learning_rates: Mapping[str, Curve]
    mixture: Float64[np.ndarray, "steps domains"]
    loss_weights: Float64[np.ndarray, "steps domains"]
    class_weights: Float64[np.ndarray, "steps classes"] | None
    optimizer: Mapping[str, Curve | Mapping[str, Curve]]
    loss_terms: Mapping[str, Curve]
    hyper: Hyper


class ScheduleFields(TypedDict):
    """The fields that all schedules of an artefact have."""

    knots: tuple[float, ...]
    interpolation: Literal["constant"]


class Used(NamedTuple):
    """What a training uses at some meta-parameters.

    Attributes:
        steps: horizon of the inner training.
        trajectory: the hyperparameters of every step.
        domains: names of the domains.
        sequence_length: tokens of a sequence.
        optimizer: what trains.
        decayed: checkpoint names of the parameters that weight decay applies to.
        members: of each of several optimizers side by side, checkpoint names by what they are
            there, as of `optimizers.members`; empty of one optimizer.
        start: to what the training starts from by checkpoint name; None if that isn't tuned.
    """

    steps: int
    trajectory: Trajectory
    domains: tuple[str, ...]
    sequence_length: int
    optimizer: schema.InnerOptimizerSpec
    decayed: tuple[str, ...]
    start: Callable[[], Mapping[str, Float[np.ndarray, "..."]] | None]
    members: tuple[Mapping[str, Sequence[str]], ...] = ()

    def scheduled(
        self, curves: Sequence[Curve] | Float64[np.ndarray, "curves steps"]
    ) -> tuple[Int[np.ndarray, "knots"], ScheduleFields]:
        """The steps at which some curves change, and the fields that all schedules have."""
        kept = where_changed(np.stack(list(curves), axis=1))
        return kept, {"knots": fractions(kept, self.steps), "interpolation": "constant"}
