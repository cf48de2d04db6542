"""Exports to the Trainer of Hugging Face transformers, by the module for PyTorch."""

from metatune.artefact.exporters.base import Exporter, export_files

HF_TRAINER = Exporter(
    "hf-trainer",
    "a module that gives transformers.Trainer its optimizer and scheduler",
    lambda artefact: export_files(artefact, "hf_trainer", "torch_schedules.py"),
)
