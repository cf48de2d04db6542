"""The artefact of a tuning: its format, reading and writing it, and exporters to trainers."""

from metatune.artefact.format import (
    SETTINGS,
    Artefact,
    ArtefactError,
    LearningRates,
    LossWeights,
    Mixture,
    Multipliers,
    Optimizer,
)
from metatune.artefact.reading import load
from metatune.artefact.writing import self_contained, write

__all__ = [
    "SETTINGS",
    "Artefact",
    "ArtefactError",
    "LearningRates",
    "LossWeights",
    "Mixture",
    "Multipliers",
    "Optimizer",
    "load",
    "self_contained",
    "write",
]
