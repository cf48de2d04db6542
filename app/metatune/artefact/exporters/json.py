"""Exports the numbers, and a module of no package, for a trainer of one file."""

from metatune.artefact.capabilities import SCHEDULES, able
from metatune.artefact.exporters.base import Exporter, export_files
from metatune.artefact.sections.optimizer import OF_GROUP, SETTINGS

JSON = Exporter(
    "json",
    "tuned.json, every number in it, and a module that reads it without any package",
    able(SCHEDULES, rater="exact", auxiliary_head="exact", router_balance="exact"),
    lambda production: export_files(production, "json", {"metatune_schedule.py": "schedule.py"}),
    optimizers=tuple(SETTINGS),
    side_by_side=tuple(OF_GROUP),
)
