"""What a training uses at some meta-parameters: what the sections of an artefact are made of."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from metatune.artefact.curves import fractions, where_changed
from metatune.recipe import schema
from metatune.tunables.hyper import Hyper


class Trajectory(NamedTuple):
    """The hyperparameters of every inner step, float32 numbers held as float64.

    Attributes:
        learning_rates: absolute rate of each update by checkpoint name, [steps] each; where rates
            are tuned within parameters, those that their multipliers are of.
        mixture: shares of the domains, [steps, domains]; rows sum to one in float64.
        loss_weights: weights of the domains' losses, [steps, domains], rows average one.
        class_weights: weights of the tokens' losses by their `TokenClasses`, [steps, classes];
            None where none are tuned.
        optimizer: numbers of the optimizer that are tuned, [steps] each, by name; of weight decay
            a mapping by checkpoint name, of what decays.
        loss_terms: coefficients of the terms of the loss, tuned or not, [steps] each, by name.
        hyper: all λ_t as the training has them, stacked.
    """

    learning_rates: Mapping[str, np.ndarray]
    mixture: np.ndarray
    loss_weights: np.ndarray
    class_weights: np.ndarray | None
    optimizer: Mapping[str, Any]
    loss_terms: Mapping[str, np.ndarray]
    hyper: Hyper


class Used(NamedTuple):
    """What a training uses at some meta-parameters.

    Attributes:
        steps: horizon of the inner training.
        trajectory: the hyperparameters of every step.
        domains: names of the domains.
        sequence_length: tokens of a sequence.
        optimizer: what trains.
        decayed: checkpoint names of the parameters that weight decay applies to.
        start: to what the training starts from by checkpoint name; None if that isn't tuned.
    """

    steps: int
    trajectory: Trajectory
    domains: tuple[str, ...]
    sequence_length: int
    optimizer: schema.InnerOptimizerSpec
    decayed: tuple[str, ...]
    start: Callable[[], Mapping[str, np.ndarray] | None]

    def scheduled(self, curves: Sequence[np.ndarray] | np.ndarray) -> tuple[np.ndarray, Any]:
        """The steps at which some curves [steps] change, and the fields that all schedules have."""
        kept = where_changed(np.stack(list(curves), axis=1))
        return kept, {"knots": fractions(kept, self.steps), "interpolation": "constant"}
