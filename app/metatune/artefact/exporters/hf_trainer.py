"""Exports to the Trainer of Hugging Face transformers, by the module for PyTorch."""

from metatune.artefact.capabilities import SCHEDULES
from metatune.artefact.exporters.base import MODULE, Exporter, export_files
from metatune.artefact.exporters.torch import SIDE_BY_SIDE, muon_faults

MODULES = {MODULE: "torch_schedules.py", "metatune_trainer.py": "hf_trainer.py"}

HF_TRAINER = Exporter(
    "hf-trainer",
    "a module that gives transformers.Trainer its optimizer, its data and its loss weights",
    SCHEDULES,
    lambda production: export_files(production, "hf_trainer", MODULES),
    "5.23.0",
    side_by_side=SIDE_BY_SIDE,
    faults=muon_faults,
    stacks_experts="all",
)
