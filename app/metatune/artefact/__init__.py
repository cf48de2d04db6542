"""The artefact of a tuning: its format, reading and writing it, and exporters to trainers."""

from metatune.artefact.certificate import read as read_certificate
from metatune.artefact.certificate import refuse_artefact_folder, with_certificate
from metatune.artefact.certificate import rendered as rendered_certificate
from metatune.artefact.folders import replace_file
from metatune.artefact.format import (
    CERTIFICATE,
    CERTIFICATE_FORMAT,
    CERTIFICATE_VERSION,
    INITIALISATION,
    RECIPE,
    REPLAY,
    SETTINGS,
    Artefact,
    ArtefactError,
    ClassWeights,
    ElementFactors,
    Initialisation,
    Interpolated,
    LearningRates,
    LossWeights,
    Mixture,
    Multipliers,
    Optimizer,
    OptimizerSchedules,
    Origin,
    Rater,
)
from metatune.artefact.learned_update import LearnedUpdate
from metatune.artefact.reading import folder_of, load
from metatune.artefact.writing import portable_files, self_contained, write

__all__ = [
    "CERTIFICATE",
    "CERTIFICATE_FORMAT",
    "CERTIFICATE_VERSION",
    "INITIALISATION",
    "RECIPE",
    "REPLAY",
    "SETTINGS",
    "Artefact",
    "ArtefactError",
    "ClassWeights",
    "ElementFactors",
    "Initialisation",
    "Interpolated",
    "LearnedUpdate",
    "LearningRates",
    "LossWeights",
    "Mixture",
    "Multipliers",
    "Optimizer",
    "OptimizerSchedules",
    "Origin",
    "Rater",
    "folder_of",
    "load",
    "portable_files",
    "read_certificate",
    "refuse_artefact_folder",
    "rendered_certificate",
    "replace_file",
    "with_certificate",
    "self_contained",
    "write",
]
