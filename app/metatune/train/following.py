"""How a training follows an artefact: one function for each section, found by its key."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from metatune import artefact
from metatune.artefact import Artefact, ClassWeights, Labels, Positions, Vocabulary
from metatune.artefact.curves import rows_at
from metatune.artefact.demands import Demands, demands
from metatune.artefact.document import held
from metatune.inner import InnerTraining
from metatune.models import ParameterNames
from metatune.train.learned_update import corrections
from metatune.tunables import Hyper, TokenClasses
from metatune.tunables.optimizer_groups import has_number
from metatune.tunables.token_classes import PARTS


class Steps(NamedTuple):
    """Steps of a training, whose hyperparameters are wanted.

    Attributes:
        training: that they are of.
        shapes: of its parameters.
        steps: which.
    """

    training: InnerTraining
    shapes: Any
    steps: Sequence[int]

    @property
    def total(self) -> int:
        """Steps of the whole training."""
        return self.training.recipe.inner.steps

    def by_parameter(self, columns: Mapping[str, np.ndarray]) -> Any:
        """Values [steps] by name as a tree like the parameters, each leaf of its rank and one.

        A value for each layer of a stacked leaf; None at parameters that have none.
        """

        def leaf(named: ParameterNames, shape: jax.ShapeDtypeStruct) -> jax.Array | None:
            if named.names[0] not in columns:
                return None
            own = np.stack([columns[name] for name in named.names], axis=1)
            layers = (len(named.names),) if named.stacked else ()
            ones = (1,) * (len(shape.shape) - len(layers))
            return jnp.asarray(own.reshape(len(own), *layers, *ones))

        return jax.tree.map(leaf, self.training.names, self.shapes)

    def by_domain(self, schedule: artefact.Mixture | artefact.LossWeights) -> np.ndarray:
        """Shares or weights in the order of the recipe's domains, [steps, domains]."""
        order = [schedule.domains.index(name) for name in self.training.corpus.names]
        return rows_at(schedule, self.steps, self.total)[:, order]


def classes_of(weights: ClassWeights, training: InnerTraining) -> TokenClasses:
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


def _rates(rates: artefact.LearningRates, at: Steps, hyper: Hyper) -> Hyper:
    columns = dict(zip(rates.parameters, rates.over(at.steps, at.total).T, strict=True))
    return hyper._replace(learning_rate=at.by_parameter(columns))


def _mixture(mixture: artefact.Mixture, at: Steps, hyper: Hyper) -> Hyper:
    return hyper._replace(mixture=jnp.asarray(at.by_domain(mixture)))


def _loss_weights(weights: artefact.LossWeights | ClassWeights, at: Steps, hyper: Hyper) -> Hyper:
    if not isinstance(weights, ClassWeights):
        return hyper._replace(loss_weights=jnp.asarray(at.by_domain(weights)), class_weights=None)
    names = classes_of(weights, at.training).names
    # Those of absent classes are one.
    table = np.ones((len(at.steps), len(names)))
    places = [names.index(name) for name in weights.classes]
    table[:, places] = rows_at(weights, at.steps, at.total)
    even = jnp.ones_like(hyper.loss_weights)
    return hyper._replace(loss_weights=even, class_weights=jnp.asarray(table))


def _optimizer(optimizer: artefact.Optimizer, at: Steps, hyper: Hyper) -> Hyper:
    """What the recipe's optimizer doesn't have is left out, as `matching` warns."""
    tables = optimizer.tables(at.steps, at.total)
    found: dict[str, Any] = {n: jnp.asarray(v) for n, v in tables.get("optimizer", {}).items()}
    if (decay := tables.get("weight_decay")) is not None:
        found["weight_decay"] = at.by_parameter(decay)
    ours = at.training.recipe.inner.optimizer
    tuned = {name: values for name, values in found.items() if has_number(ours, name)}
    if optimizer.schedules is None:
        return hyper
    return hyper._replace(optimizer={**(hyper.optimizer or {}), **tuned})


def _loss_terms(terms: artefact.LossTerms, at: Steps, hyper: Hyper) -> Hyper:
    if not terms.tuned:
        return hyper
    rows = terms.over(at.steps, at.total)
    tuned = {name: jnp.asarray(rows[name]) for name in terms.tuned}
    return hyper._replace(loss_terms={**(hyper.loss_terms or {}), **tuned})


def _learned_update(learned: artefact.LearnedUpdate, at: Steps, hyper: Hyper) -> Hyper:
    return hyper._replace(learned_update=corrections(learned, at.steps, at.total))


def _averaging(averaging: artefact.Averaging, at: Steps, hyper: Hyper) -> Hyper:
    decay = averaging.over(at.steps, at.total)["decay"]
    return hyper._replace(averaging=jnp.asarray(decay, jnp.float32))


def _elsewhere(value: Any, at: Steps, hyper: Hyper) -> Hyper:
    """It acts once: before the first step, or in what every segment is given."""
    return hyper


FOLLOWERS: Final[Mapping[str, Callable[[Any, Steps, Hyper], Hyper]]] = {
    "learning_rates": _rates,
    "mixture": _mixture,
    "loss_weights": _loss_weights,
    "optimizer": _optimizer,
    "loss_terms": _loss_terms,
    "learned_update": _learned_update,
    "averaging": _averaging,
    "rater": _elsewhere,
    "initialisation": _elsewhere,
}
"""A section's value, steps, and λ as the recipe and the sections before have it, to λ with it."""


def _demanded(asked: Demands, at: Steps, hyper: Hyper) -> Hyper:
    """λ with the numbers of the optimizer that a rule changed, and ε where parameters differ."""
    ones = np.ones(len(at.steps))
    if asked.settings:
        numbers = {name: jnp.asarray(value * ones) for name, value in asked.settings.items()}
        if "weight_decay" in numbers:
            decayed = at.training.decayed()
            columns = dict.fromkeys(decayed, asked.settings["weight_decay"] * ones)
            numbers["weight_decay"] = at.by_parameter(columns)
        hyper = hyper._replace(optimizer={**(hyper.optimizer or {}), **numbers})
    if asked.eps:
        columns = {name: factor * ones for name, factor in asked.eps.items()}
        hyper = hyper._replace(eps_scale=at.by_parameter(columns))
    return hyper


def followed(tuned: Artefact, at: Steps, hyper: Hyper) -> Hyper:
    """λ of some steps, with what an artefact tuned in the place of the recipe's own."""
    if (asked := demands(tuned)) is not None:
        hyper = _demanded(asked, at, hyper)
    for section, value in held(tuned):
        hyper = FOLLOWERS[section.key](value, at, hyper)
    return hyper


def not_followed(tuned: Artefact) -> Iterator[str]:
    """Paths of what an artefact holds and no training follows."""
    if tuned.learning_rates.elements is not None:
        yield "learning_rates.elements"
    yield from (section.key for section, _ in held(tuned) if section.key not in FOLLOWERS)
