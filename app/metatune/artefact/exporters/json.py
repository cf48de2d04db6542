"""Exports the numbers alone, for a trainer that reads JSON by itself."""

from metatune.artefact.capabilities import SCHEDULES, able
from metatune.artefact.exporters.base import Exporter, export_files
from metatune.artefact.sections.optimizer import SETTINGS

JSON = Exporter(
    "json",
    "tuned.json alone, every number in it",
    able(SCHEDULES, rater="exact", auxiliary_head="exact"),
    lambda production: export_files(production, "json", {}),
    optimizers=tuple(SETTINGS),
)
