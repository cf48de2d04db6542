"""Exports to Optax: a module that builds schedules and the whole gradient transformation."""

from collections.abc import Iterator

from metatune.artefact.capabilities import EVERYTHING
from metatune.artefact.exporters.base import MODULE, Exporter, export_files
from metatune.artefact.format import Artefact
from metatune.recipe.faults import Fault

INPUTS_FIRST = "gpt2"
"""The family whose checkpoints hold matrices as [inputs, outputs]."""


def _faults(artefact: Artefact) -> Iterator[Fault]:
    """Muon scales by outputs over inputs, and an artefact of one optimizer doesn't say which."""
    config = artefact.provenance.get("model_config") or {}
    if artefact.optimizer.settings["kind"] == "muon" and config.get("model_type") == INPUTS_FIRST:
        problem = f"of {INPUTS_FIRST}, whose checkpoints hold matrices as [inputs, outputs]"
        cure = "choose json, or tune with inner.optimizer.groups of one muon: these say it"
        yield Fault("optimizer.kind", "muon", problem, cure)


OPTAX = Exporter(
    "optax",
    "a module of Optax schedules and the optimizer, for parameters under checkpoint names",
    EVERYTHING,
    lambda production: export_files(production, "optax", {MODULE: "optax_schedules.py"}),
    "0.2.8",
    ("adamw", "sgd", "lion", "adopt", "muon", "adamh", "muonh"),
    side_by_side=("adamw", "sgd", "lion", "adopt", "muon", "adamh", "muonh"),
    faults=_faults,
)
