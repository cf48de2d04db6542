"""The artefact of a tuning: its format, reading and writing it, and exporters to trainers."""

from metatune.artefact.certificate import read as read_certificate
from metatune.artefact.certificate import refuse_artefact_folder, with_certificate
from metatune.artefact.certificate import rendered as rendered_certificate
from metatune.artefact.errors import ArtefactError
from metatune.artefact.files import (
    CERTIFICATE,
    CERTIFICATE_FORMAT,
    CERTIFICATE_VERSION,
    INITIALISATION,
    RECIPE,
    REPLAY,
)
from metatune.artefact.folders import replace_file
from metatune.artefact.format import UNFINISHED, Artefact, Origin
from metatune.artefact.ledger import read as read_ledger
from metatune.artefact.ledger import with_ledger
from metatune.artefact.reading import folder_of, load
from metatune.artefact.sections.averaging import Averaging
from metatune.artefact.sections.elements import ElementFactors
from metatune.artefact.sections.initialisation import Initialisation, Interpolated
from metatune.artefact.sections.learned_update import LearnedUpdate
from metatune.artefact.sections.loss_terms import LossTerms
from metatune.artefact.sections.loss_weights import (
    ClassWeights,
    Labels,
    LossWeights,
    Positions,
    Vocabulary,
)
from metatune.artefact.sections.mixture import Mixture
from metatune.artefact.sections.optimizer import SETTINGS, Optimizer, OptimizerSchedules
from metatune.artefact.sections.rater import Rater
from metatune.artefact.sections.rates import LearningRates, Multipliers
from metatune.artefact.verdict import read as read_verdict
from metatune.artefact.verdict import with_verdict
from metatune.artefact.writing import portable_files, self_contained, write

__all__ = [
    "CERTIFICATE",
    "CERTIFICATE_FORMAT",
    "CERTIFICATE_VERSION",
    "INITIALISATION",
    "RECIPE",
    "REPLAY",
    "SETTINGS",
    "UNFINISHED",
    "Artefact",
    "ArtefactError",
    "Averaging",
    "ClassWeights",
    "ElementFactors",
    "Initialisation",
    "Interpolated",
    "Labels",
    "LearnedUpdate",
    "LearningRates",
    "LossTerms",
    "LossWeights",
    "Mixture",
    "Multipliers",
    "Optimizer",
    "OptimizerSchedules",
    "Origin",
    "Positions",
    "Rater",
    "Vocabulary",
    "folder_of",
    "load",
    "portable_files",
    "read_certificate",
    "read_ledger",
    "read_verdict",
    "refuse_artefact_folder",
    "rendered_certificate",
    "replace_file",
    "self_contained",
    "with_certificate",
    "with_ledger",
    "with_verdict",
    "write",
]
