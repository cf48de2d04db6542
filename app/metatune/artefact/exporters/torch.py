"""Exports to PyTorch: a module that builds parameter groups, the optimizer and its scheduler."""

from metatune.artefact.capabilities import EVERYTHING
from metatune.artefact.exporters.base import MODULE, Exporter, export_files

TORCH = Exporter(
    "torch",
    "a module of PyTorch parameter groups, the optimizer and its scheduler",
    EVERYTHING,
    lambda production: export_files(production, "torch", {MODULE: "torch_schedules.py"}),
    "2.13",
)
