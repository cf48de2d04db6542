"""Exports to Optax: a module that builds schedules and the whole gradient transformation."""

from metatune.artefact.capabilities import EVERYTHING
from metatune.artefact.exporters.base import MODULE, Exporter, export_files

OPTAX = Exporter(
    "optax",
    "a module of Optax schedules and the optimizer, for parameters under checkpoint names",
    EVERYTHING,
    lambda production: export_files(production, "optax", {MODULE: "optax_schedules.py"}),
    "0.2.8",
    ("adamw", "sgd", "lion", "adopt"),
)
