"""What every step of a training uses: the recipe's own choices, and tuned ones in their place.

The numbers of a stretch of steps are an argument of the compiled program, so that the same program
trains at any schedule, and what is on the device doesn't grow with the number of steps.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from metatune.artefact import (
    Artefact,
    ClassWeights,
    Labels,
    LossWeights,
    Mixture,
    Positions,
    Vocabulary,
)
from metatune.artefact.format import value_at
from metatune.hypergrad import Problem
from metatune.inner import InnerTraining
from metatune.models import ParameterNames
from metatune.train.learned_update import corrections
from metatune.tunables import Hyper, TokenClasses
from metatune.tunables.rating import held
from metatune.tunables.token_classes import PARTS


class Stretch(NamedTuple):
    """The hyperparameters of some steps: what stands for η in the compiled program.

    Attributes:
        first: the first step, an int32 scalar.
        hyper: λ of each, stacked, [length, ...]; without the rater.
        rater: the rater of all steps; None for none.
    """

    first: np.int32
    hyper: Hyper
    rater: jax.tree_util.Partial | None = None


def _hyper_at(stretch: Stretch, step: jax.Array) -> Hyper:
    """The map from a stretch to λ_t, in the place of that from η."""
    at = step - stretch.first
    hyper = jax.tree.map(
        lambda leaf: jax.lax.dynamic_index_in_dim(leaf, at, keepdims=False), stretch.hyper
    )
    return hyper._replace(rater=stretch.rater)


def scheduled(training: InnerTraining, tuned: Artefact | None = None) -> Problem:
    """The training by true sampling, with a `Stretch` in the place of the meta-parameters.

    Tokens are in the classes that an artefact weighs, where it weighs any.
    """
    problem = training.sampled
    if tuned is not None and isinstance(tuned.loss_weights, ClassWeights):
        problem = training.weighing(_classes(tuned.loss_weights, training))
    # A tuned start isn't of η here: `start.py` puts the weights in place.
    return replace(problem, hyper_at=_hyper_at, start=None)


def _classes(weights: ClassWeights, training: InnerTraining) -> TokenClasses:
    """The classes of tokens of an artefact's weights, of the data of a training."""
    match weights.of:
        case Positions(sequence_length, starts):
            table = np.searchsorted(starts, np.arange(1, sequence_length), side="right") - 1
            return TokenClasses("position", weights.classes, table.astype(np.uint8))
        case Vocabulary(classes):
            return TokenClasses("frequency", weights.classes, classes)
        case Labels():
            return TokenClasses("label", training.corpus.labels)
    return PARTS


def _weights(tuned: Artefact) -> jax.tree_util.Partial | None:
    """What an artefact's rater makes of a batch; None where it has none."""
    if tuned.rater is None:
        return None
    rating, params = held(tuned.rater.settings, tuned.rater.parameters)
    return jax.tree_util.Partial(rating.weights, params)


class Schedules:
    """The hyperparameters of a training, stretch by stretch."""

    def __init__(self, training: InnerTraining, tuned: Artefact | None, length: int):
        """Puts tuned schedules in the place of a recipe's own.

        Args:
            training: whose recipe says what isn't tuned; its horizon is the training's.
            tuned: an artefact that fits it, as `matching.refuse_misfit` wants it; None for the
                recipe's own choices alone.
            length: steps of a stretch.
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

    def stretch(self, first: int) -> Stretch:
        """The hyperparameters of steps `first` up to `first + length`."""
        steps = self._steps(first)
        hyper, tuned = self._recipe_s(steps), self._tuned
        if tuned is not None:
            rows = np.stack([tuned.rates_at(step, self._total) for step in steps])
            rates = self._by_parameter(rows, list(tuned.learning_rates.parameters))
            hyper = hyper._replace(learning_rate=rates)
            if tuned.mixture is not None:
                hyper = hyper._replace(mixture=jnp.asarray(self._by_domain(tuned.mixture, steps)))
            if isinstance(tuned.loss_weights, ClassWeights):
                weights = jnp.asarray(self._by_class(tuned.loss_weights, steps))
                even = jnp.ones_like(hyper.loss_weights)
                hyper = hyper._replace(loss_weights=even, class_weights=weights)
            elif tuned.loss_weights is not None:
                weights = jnp.asarray(self._by_domain(tuned.loss_weights, steps))
                hyper = hyper._replace(loss_weights=weights, class_weights=None)
            if tuned.optimizer.schedules is not None:
                own = hyper.optimizer or {}
                hyper = hyper._replace(optimizer={**own, **self._of_optimizer(tuned, steps)})
            if tuned.loss_terms is not None and tuned.loss_terms.tuned:
                terms = {**(hyper.loss_terms or {}), **self._of_loss(tuned, steps)}
                hyper = hyper._replace(loss_terms=terms)
            if (learned := tuned.learned_update) is not None:
                hyper = hyper._replace(learned_update=corrections(learned, steps, self._total))
        return Stretch(np.int32(first), hyper, self._rater)

    def shares(self) -> np.ndarray:
        """The shares of the domains at every step, float64 [steps, domains]; rows sum to one."""
        if self._tuned is not None and self._tuned.mixture is not None:
            return self._by_domain(self._tuned.mixture, range(self._total))
        firsts = range(0, self._total, self._length)
        parts = [np.asarray(self._recipe_s(self._steps(first)).mixture) for first in firsts]
        shares = np.concatenate(parts)[: self._total].astype(np.float64)
        return shares / shares.sum(-1, keepdims=True)

    def rates(self, stretch: Stretch, step: int) -> dict[str, float]:
        """The learning rate of each group of parameters that share one, at a step of a stretch."""
        multipliers = self._tuned and self._tuned.learning_rates.multipliers
        named = jax.tree.leaves(self._training.names)
        if multipliers:
            groups = {label: names[0] for label, names in multipliers.members.items() if names}
        else:
            groups = {"all": named[0].names[0]}
        found: dict[str, float] = {}
        for leaf, curve in zip(named, jax.tree.leaves(stretch.hyper.learning_rate), strict=True):
            at_step = np.ravel(np.asarray(curve)[step - stretch.first])
            row = np.broadcast_to(at_step, (len(leaf.names),))
            found |= dict(zip(leaf.names, map(float, row), strict=True))
        return {label: found[name] for label, name in groups.items()}

    def _steps(self, first: int) -> list[int]:
        """Steps of a stretch; where it ends after the training, its last again, to be skipped."""
        return [min(step, self._total - 1) for step in range(first, first + self._length)]

    def _recipe_s(self, steps: Sequence[int]) -> Hyper:
        """The recipe's own hyperparameters at some steps."""
        return self._training.hyper_over(self._eta, np.asarray(steps, np.int32))

    def _of_optimizer(self, tuned: Artefact, steps: Sequence[int]) -> dict[str, Any]:
        """What was tuned of the optimizer, as of `Hyper.optimizer`, [steps, ...].

        What the recipe's optimizer doesn't have is left out, as `matching` warns.
        """
        optimizer = self._training.recipe.inner.optimizer
        at = [tuned.optimizer_at(step, self._total) for step in steps]
        schedules, found = tuned.optimizer.schedules, {}
        for name in schedules.names if schedules else ():
            if not hasattr(optimizer, name):
                continue
            rows = [numbers[name] for numbers in at]
            if name == "weight_decay":
                table = np.array([list(row.values()) for row in rows])
                found[name] = self._by_parameter(table, list(rows[0]))
            else:
                found[name] = jnp.asarray(rows)
        return found

    def _of_loss(self, tuned: Artefact, steps: Sequence[int]) -> dict[str, jax.Array]:
        """The terms of the loss that were tuned, [steps] each."""
        at = [tuned.loss_terms_at(step, self._total) for step in steps]
        names = tuned.loss_terms.tuned if tuned.loss_terms else ()
        return {name: jnp.asarray([row[name] for row in at]) for name in names}

    def _by_parameter(self, rows: np.ndarray, names: Sequence[str]) -> Any:
        """Values [steps, parameters] as a tree like the parameters, each leaf of its rank and one.

        A value for each layer of a stacked leaf; None at parameters that have none.
        """
        place = {name: index for index, name in enumerate(names)}

        def leaf(named: ParameterNames, shape: jax.ShapeDtypeStruct) -> jax.Array | None:
            if named.names[0] not in place:
                return None
            columns = rows[:, [place[name] for name in named.names]]
            layers = (len(named.names),) if named.stacked else ()
            ones = (1,) * (len(shape.shape) - len(layers))
            return jnp.asarray(columns.reshape(len(rows), *layers, *ones))

        return jax.tree.map(leaf, self._training.names, self._shapes)

    def _by_domain(self, schedule: Mixture | LossWeights, steps: Sequence[int]) -> np.ndarray:
        """Shares or weights in the order of the recipe's domains, [steps, domains]."""
        order = [schedule.domains.index(name) for name in self._training.corpus.names]
        return self._rows(schedule, steps)[:, order]

    def _by_class(self, schedule: ClassWeights, steps: Sequence[int]) -> np.ndarray:
        """Weights of all classes, those of absent ones one, [steps, classes]."""
        names = _classes(schedule, self._training).names
        weights = np.ones((len(steps), len(names)))
        weights[:, [names.index(name) for name in schedule.classes]] = self._rows(schedule, steps)
        return weights

    def _rows(
        self, schedule: Mixture | LossWeights | ClassWeights, steps: Sequence[int]
    ) -> np.ndarray:
        knots, weights, way = schedule.knots, schedule.weights, schedule.interpolation
        return np.stack([value_at(knots, weights, way, step, self._total) for step in steps])
