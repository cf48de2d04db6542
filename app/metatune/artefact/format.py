"""What an artefact is: tuned schedules in memory, and the value of each at a step of training."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from metatune.artefact.errors import ArtefactError
from metatune.artefact.sections.averaging import Averaging
from metatune.artefact.sections.initialisation import Initialisation
from metatune.artefact.sections.learned_update import LearnedUpdate
from metatune.artefact.sections.loss_terms import LossTerms
from metatune.artefact.sections.loss_weights import ClassWeights, LossWeights
from metatune.artefact.sections.mixture import Mixture
from metatune.artefact.sections.optimizer import KEY as OPTIMIZER
from metatune.artefact.sections.optimizer import Optimizer
from metatune.artefact.sections.rater import Rater
from metatune.artefact.sections.rates import LearningRates
from metatune.recipe.faults import Fault

UNFINISHED: Final = "the artefact is of a search that isn't finished: the best so far, unmeasured"
"""What is to be said wherever one is used whose `result.status` is `unfinished`."""


@dataclass(frozen=True, eq=False)
class Origin:
    """What the tuned training can be done again from.

    Attributes:
        recipe: the resolved recipe, the text of its recipe.yaml.
        meta_parameters: η, arrays by the dotted names of its leaves: what was tuned, to the bit.
        record: some numbers of trainings at these meta-parameters, and the machine that they were
            done on; plain JSON values; None where nothing was trained here or the run isn't over.
    """

    recipe: str
    meta_parameters: Mapping[str, np.ndarray]
    record: Mapping[str, Any] | None = None


@dataclass(frozen=True, eq=False)
class Artefact:
    """Tuned schedules with their provenance.

    Attributes:
        horizon_steps: updates of the training that was tuned.
        horizon_tokens: tokens of the training that was tuned.
        learning_rates: for every parameter.
        mixture: shares of the domains, if they were tuned.
        loss_weights: weights of the domains or of the classes of tokens in the loss, if they were
            tuned.
        optimizer: that the rates were tuned for.
        provenance: versions and hashes of what it was made from; plain JSON values.
        result: what the tuning gained; plain JSON values.
        certificate: what `metatune check` found of the recipe's hypergradients; plain JSON values;
            None where it wasn't asked.
        origin: what it can be trained again from; None where that wasn't kept.
        loss_terms: what the loss has beside the next token's term; None for nothing.
        initialisation: what the training starts from, if that was tuned.
        learned_update: networks that correct the optimizer's step, if they were tuned.
        rater: weighs the sequences of each batch, if one was tuned.
        averaging: the average of the parameters that is evaluated; None for none.
        transfer: what `metatune transfer` measured of larger trainings; plain JSON values; None
            where it wasn't asked.
        verdict: what `metatune verdict` found against what a user would have done; plain JSON
            values; None where it wasn't asked.
    """

    horizon_steps: int
    horizon_tokens: int
    learning_rates: LearningRates
    mixture: Mixture | None
    loss_weights: LossWeights | ClassWeights | None
    optimizer: Optimizer
    provenance: Mapping[str, Any]
    result: Mapping[str, Any]
    certificate: Mapping[str, Any] | None = None
    origin: Origin | None = None
    loss_terms: LossTerms | None = None
    initialisation: Initialisation | None = None
    learned_update: LearnedUpdate | None = None
    rater: Rater | None = None
    averaging: Averaging | None = None
    transfer: Mapping[str, Any] | None = None
    verdict: Mapping[str, Any] | None = None

    def learning_rate(self, name: str, step: int, total: int) -> float | np.ndarray:
        """The rate of parameter `name` at update `step` (from 0) of a training of `total` updates.

        Returns:
            A number; where rates were tuned within parameters, a float64 array of the tensor's
            rank that broadcasts against it.

        Raises:
            ArtefactError: no such parameter, a negative step or a total below 1.
        """
        return self.learning_rates.rate(name, step, total)

    def rates_at(self, step: int, total: int) -> np.ndarray:
        """Rates [parameters] at update `step` (from 0) of `total`, in the order of the parameters.

        Raises:
            ArtefactError: a negative step or a total below 1, or rates within parameters.
        """
        return self.learning_rates.over((step,), total)[0]

    def mixture_at(self, step: int, total: int) -> dict[str, float]:
        """The share of each domain at update `step` (from 0) of `total`; they sum to one.

        Raises:
            ArtefactError: no mixture was tuned, a negative step or a total below 1.
        """
        return _at(self.mixture, "mixture", step, total)

    def optimizer_at(self, step: int, total: int) -> dict[str, Any]:
        """The settings of the optimizer at update `step` (from 0) of `total`.

        Where it was tuned, `weight_decay` is a number for each parameter that decays, by name.

        Raises:
            ArtefactError: a negative step or a total below 1.
        """
        tuned = {
            name: {label: float(row[0]) for label, row in columns.items()}
            for name, columns in self.optimizer.tables((step,), total).items()
        }
        return {**self.optimizer.settings, **tuned.pop(OPTIMIZER, {}), **tuned}

    def loss_terms_at(self, step: int, total: int) -> dict[str, float]:
        """The coefficient of each term of the loss at update `step` (from 0) of `total`.

        Raises:
            ArtefactError: a negative step or a total below 1.
        """
        return {} if self.loss_terms is None else _at(self.loss_terms, "loss_terms", step, total)

    def loss_weights_at(self, step: int, total: int) -> dict[str, float]:
        """The loss weight of each domain or class at update `step` (from 0) of `total`.

        Those of domains average one, those of classes average one over the training tokens.

        Raises:
            ArtefactError: no loss weights were tuned, a negative step or a total below 1.
        """
        return _at(self.loss_weights, "loss_weights", step, total)


def _at(schedule: Any, field: str, step: int, total: int) -> dict[str, float]:
    if schedule is None:
        cure = f"tune it: `tune: {{{field}: ...}}` in the recipe"
        raise ArtefactError("artefact", [Fault(field, None, "the artefact holds none", cure)])
    return {name: float(row[0]) for name, row in schedule.over((step,), total).items()}
