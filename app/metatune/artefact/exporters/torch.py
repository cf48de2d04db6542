"""Exports to PyTorch: a module that builds parameter groups, the optimizer and its scheduler."""

from metatune.artefact.exporters.base import Exporter, export_files

TORCH = Exporter(
    "torch",
    "a module of PyTorch parameter groups, the optimizer and its scheduler",
    lambda artefact: export_files(artefact, "torch", "torch_schedules.py"),
)
