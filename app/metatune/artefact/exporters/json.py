"""Exports the numbers alone, for a trainer that reads JSON by itself."""

from metatune.artefact.exporters.base import Exporter, export_files

JSON = Exporter(
    "json",
    "tuned.json alone, every number in it",
    lambda artefact: export_files(artefact, "json", None),
)
