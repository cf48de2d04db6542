"""Carrying what was tuned on a small training over to another: sizes, rules, and what they ask."""

from metatune.transfer.carried import Carried, carry, factors_of
from metatune.transfer.factors import Factor, Factors
from metatune.transfer.rules import DEFAULT, RULES
from metatune.transfer.sides import of_artefact, of_folder, of_training
from metatune.transfer.sizes import Parameter, Side, of_config, of_model

__all__ = [
    "DEFAULT",
    "RULES",
    "Carried",
    "Factor",
    "Factors",
    "Parameter",
    "Side",
    "carry",
    "factors_of",
    "of_artefact",
    "of_config",
    "of_folder",
    "of_model",
    "of_training",
]
