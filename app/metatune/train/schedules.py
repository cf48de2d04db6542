"""What every step of a training uses: the recipe's own choices, and tuned ones in their place.

The numbers of a segment of steps are an argument of the compiled program, so that the same program
trains at any schedule, and what is on the device doesn't grow with the number of steps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import jax
import numpy as np

from metatune.artefact import Artefact, ClassWeights
from metatune.hypergrad import Problem
from metatune.inner import InnerTraining
from metatune.recipe.schema import GroupsSpec
from metatune.train.following import Steps, classes_of, followed
from metatune.tunables import Hyper
from metatune.tunables.optimizer_groups import assigned
from metatune.tunables.rating import held


class SegmentSchedules(NamedTuple):
    """The hyperparameters of some steps: what stands for η in the compiled program.

    Attributes:
        first: the first step, an int32 scalar.
        hyper: λ of each, stacked, [length, ...]; without the rater.
        rater: the rater of all steps; None for none.
    """

    first: np.int32
    hyper: Hyper
    rater: jax.tree_util.Partial | None = None


def _hyper_at(segment: SegmentSchedules, step: jax.Array) -> Hyper:
    """The map from a segment to λ_t, in the place of that from η."""
    at = step - segment.first
    hyper = jax.tree.map(
        lambda leaf: jax.lax.dynamic_index_in_dim(leaf, at, keepdims=False), segment.hyper
    )
    return hyper._replace(rater=segment.rater)


def scheduled(training: InnerTraining, tuned: Artefact | None = None) -> Problem:
    """The training by true sampling, with a `SegmentSchedules` in the place of the meta-parameters.

    Tokens are in the classes that an artefact weighs, where it weighs any.
    """
    problem = training.sampled
    if tuned is not None and isinstance(tuned.loss_weights, ClassWeights):
        problem = training.weighing(classes_of(tuned.loss_weights, training))
    # A tuned start isn't of η here: `start.py` puts the weights in place.
    return replace(problem, hyper_at=_hyper_at, start=None)


def _weights(tuned: Artefact) -> jax.tree_util.Partial | None:
    """What an artefact's rater makes of a batch; None where it has none."""
    if tuned.rater is None:
        return None
    rating, params = held(tuned.rater.settings, tuned.rater.parameters)
    return jax.tree_util.Partial(rating.weights, params)


class Schedules:
    """The hyperparameters of a training, segment by segment."""

    def __init__(self, training: InnerTraining, tuned: Artefact | None, length: int):
        """Puts tuned schedules in the place of a recipe's own.

        Args:
            training: whose recipe says what isn't tuned; its horizon is the training's.
            tuned: an artefact that fits it, as `matching.refuse_misfit` wants it; None for the
                recipe's own choices alone.
            length: steps of a segment.
        """
        self._training = training
        self._tuned = tuned
        self._length = length
        self._total = training.recipe.inner.steps
        self._eta = training.initial_eta()
        # The rater that a recipe's search starts from weighs nothing: it is left out.
        self._rater = tuned and _weights(tuned)
        self._shapes = jax.eval_shape(training.initialise, jax.random.key(0)).params

    @property
    def tuned(self) -> Artefact | None:
        """What it follows; None for the recipe's own choices alone."""
        return self._tuned

    def segment(self, first: int) -> SegmentSchedules:
        """The hyperparameters of steps `first` up to `first + length`."""
        steps = self._steps(first)
        hyper = self._recipe_s(steps)
        if self._tuned is not None:
            hyper = followed(self._tuned, self._at(steps), hyper)
        return SegmentSchedules(np.int32(first), hyper, self._rater)

    def shares(self) -> np.ndarray:
        """The shares of the domains at every step, float64 [steps, domains]; rows sum to one."""
        if self._tuned is not None and self._tuned.mixture is not None:
            return self._at(range(self._total)).by_domain(self._tuned.mixture)
        firsts = range(0, self._total, self._length)
        parts = [np.asarray(self._recipe_s(self._steps(first)).mixture) for first in firsts]
        shares = np.concatenate(parts)[: self._total].astype(np.float64)
        return shares / shares.sum(-1, keepdims=True)

    def rates(self, segment: SegmentSchedules, step: int) -> dict[str, float]:
        """The learning rate of each group of parameters that share one, at a step of a segment."""
        multipliers = self._tuned and self._tuned.learning_rates.multipliers
        named = jax.tree.leaves(self._training.names)
        every = tuple(name for leaf in named for name in leaf.names)
        members = dict(multipliers.members) if multipliers else {"all": every}
        groups = {label: names[0] for label, names in self._told_apart(members).items() if names}
        found: dict[str, float] = {}
        for leaf, curve in zip(named, jax.tree.leaves(segment.hyper.learning_rate), strict=True):
            at_step = np.ravel(np.asarray(curve)[step - segment.first])
            row = np.broadcast_to(at_step, (len(leaf.names),))
            found |= dict(zip(leaf.names, map(float, row), strict=True))
        return {label: found[name] for label, name in groups.items()}

    def _told_apart(self, members: Mapping[str, Sequence[str]]) -> Mapping[str, Sequence[str]]:
        """Groups of parameters, parted where optimizers side by side give them several rates."""
        optimizer = self._training.recipe.inner.optimizer
        if not isinstance(optimizer, GroupsSpec):
            return members
        found: dict[str, list[str]] = {}
        own = list(assigned(optimizer, self._training.names).members.values())
        for label, names in members.items():
            for place, taken in enumerate(own):
                if both := [name for name in names if name in taken]:
                    found[f"{label}, groups[{place}]"] = both
        return found

    def _steps(self, first: int) -> list[int]:
        """Steps of a segment; where it ends after the training, its last again, to be skipped."""
        return [min(step, self._total - 1) for step in range(first, first + self._length)]

    def _recipe_s(self, steps: Sequence[int]) -> Hyper:
        """The recipe's own hyperparameters at some steps."""
        return self._training.hyper_over(self._eta, np.asarray(steps, np.int32))

    def _at(self, steps: Sequence[int]) -> Steps:
        return Steps(self._training, self._shapes, steps)
