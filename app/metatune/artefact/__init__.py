"""The artefact of a tuning: its format, reading and writing it, and exporters to trainers."""

from metatune.artefact.format import (
    SETTINGS,
    Artefact,
    ArtefactError,
    ClassWeights,
    LearningRates,
    LossWeights,
    Mixture,
    Multipliers,
    Optimizer,
)
from metatune.artefact.reading import load
from metatune.artefact.writing import write

__all__ = [
    "SETTINGS",
    "Artefact",
    "ArtefactError",
    "ClassWeights",
    "LearningRates",
    "LossWeights",
    "Mixture",
    "Multipliers",
    "Optimizer",
    "load",
    "write",
]
