"""Exports to Optax: a module that builds schedules and the whole gradient transformation."""

from metatune.artefact.exporters.base import Exporter, export_files

OPTAX = Exporter(
    "optax",
    "a module of Optax schedules and the optimizer, for parameters under checkpoint names",
    lambda artefact: export_files(artefact, "optax", "optax_schedules.py"),
)
