"""What a trainer may be able to express of an artefact, and what an artefact asks for."""

from typing import Literal, NamedTuple

import numpy as np

from metatune.artefact.elements import averaged
from metatune.artefact.format import Artefact, ClassWeights

Support = Literal["exact", "quantised", "fitted", "no"]
"""How well a target takes a schedule: to the last digit, in steps of its own, nearly, or not."""


class Capabilities(NamedTuple):
    """What a target can express.

    Attributes:
        rates: a learning rate of its own for each parameter.
        curves: that each of these rates moves over training by itself.
        mixture: shares of the domains.
        moving_mixture: that the shares change over training.
        loss_weights: a weight of the loss by domain.
        moving_loss_weights: that these weights change over training.
        class_weights: weights of the loss by class of tokens, over training too.
        optimizer: numbers of the optimizer, such as weight decay of its own for each parameter,
            over training too.
        clip_norm: the largest norm of the gradient, over training too.
        elements: a learning rate of its own for each element of a parameter, over training too;
            where they can't be expressed, each parameter gets their mean.
        initialisation: weights that training starts from, in a file beside the schedules.
        learned_update: networks that correct the optimizer's step, element by element.
        loss_terms: coefficients of terms of the loss, such as label smoothing, over training too.
        rater: the network that weighs the sequences of a batch.
        auxiliary_head: a head that predicts the token two ahead, trained beside the model.
    """

    rates: Support = "no"
    curves: Support = "no"
    mixture: Support = "no"
    moving_mixture: Support = "no"
    loss_weights: Support = "no"
    moving_loss_weights: Support = "no"
    class_weights: Support = "no"
    optimizer: Support = "no"
    clip_norm: Support = "no"
    elements: Support = "no"
    initialisation: Support = "no"
    learned_update: Support = "no"
    loss_terms: Support = "no"
    rater: Support = "no"
    auxiliary_head: Support = "no"


DOMAINS = Capabilities("exact", "exact", "exact", "exact", "exact", "exact")
WHOLE_PARAMETERS = DOMAINS._replace(
    class_weights="exact", optimizer="exact", clip_norm="exact", loss_terms="exact"
)
SCHEDULES = WHOLE_PARAMETERS._replace(elements="exact", initialisation="exact")
EVERYTHING = SCHEDULES._replace(learned_update="exact")


def asked(artefact: Artefact) -> dict[str, str]:
    """What was tuned in `artefact` and must be expressed: a line for each capability it needs.

    A base schedule that was not tuned asks for nothing: it is a matter of the trainer.
    """
    needs: dict[str, str] = {}
    elements = artefact.learning_rates.elements
    if elements is not None:
        count = sum(factors[0].size for factors in elements.parameters.values())
        needs["elements"] = f"{count:,} learning rates within parameters (else their means)"
    multipliers = averaged(artefact).learning_rates.multipliers
    if multipliers is not None:
        factors = np.asarray(list(multipliers.groups.values()))
        if np.any(factors != factors[0]):
            needs["rates"] = f"learning rates of {len(factors)} groups of parameters"
        if np.any(factors != factors[:, :1]):
            needs["curves"] = f"rates that move over {len(multipliers.knots)} windows"
    for name, words, schedule in (
        ("mixture", "shares", artefact.mixture),
        ("loss_weights", "loss weights", artefact.loss_weights),
    ):
        if isinstance(schedule, ClassWeights):
            needs["class_weights"] = f"{words} of {len(schedule.classes)} classes of tokens"
        elif schedule is not None:
            needs[name] = f"{words} of {len(schedule.domains)} domains"
            if np.any(schedule.weights != schedule.weights[0]):
                needs[f"moving_{name}"] = f"{words} that change at {len(schedule.knots)} knots"
    if (learned := artefact.learned_update) is not None:
        count = len(learned.groups)
        needs["learned_update"] = f"a learned update: {count} networks of {learned.size:,} weights"
    if artefact.rater is not None:
        needs["rater"] = f"weights of sequences by a rater ({artefact.rater.settings['kind']})"
    schedules = artefact.optimizer.schedules
    for name in schedules.names if schedules else ():
        field = "clip_norm" if name == "clip_norm" else "optimizer"
        before = f"{needs[field]}, " if field in needs else "tuned of the optimizer: "
        needs[field] = before + name
    if artefact.loss_terms is not None and artefact.loss_terms.tuned:
        needs["loss_terms"] = f"tuned terms of the loss: {', '.join(artefact.loss_terms.tuned)}"
    # A parameter that was trained, and has a rate, whether or not its weight was tuned.
    if artefact.loss_terms is not None and "auxiliary" in artefact.loss_terms.values:
        needs["auxiliary_head"] = "an auxiliary head, of the token two ahead"
    if (start := artefact.initialisation) is not None:
        count = sum(weights.size for weights in start.parameters.values())
        needs["initialisation"] = f"a start of {count:,} weights"
    return needs


def dropped(artefact: Artefact, capabilities: Capabilities) -> dict[str, str]:
    """What `artefact` asks for and a target of such `capabilities` can't express."""
    return {
        name: what for name, what in asked(artefact).items() if getattr(capabilities, name) == "no"
    }
