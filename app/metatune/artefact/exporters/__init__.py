"""Exporters: folders that carry tuned schedules into a trainer, without metatune."""

from pathlib import Path

from metatune.artefact.exporters.base import MODULE, Exporter
from metatune.artefact.exporters.hf_trainer import HF_TRAINER
from metatune.artefact.exporters.json import JSON
from metatune.artefact.exporters.optax import OPTAX
from metatune.artefact.exporters.torch import TORCH
from metatune.artefact.folders import replace_folder
from metatune.artefact.format import README, TUNED, Artefact, ArtefactError
from metatune.recipe.faults import Fault, unknown

__all__ = ["EXPORTERS", "Exporter", "export"]

EXPORTERS = {exporter.name: exporter for exporter in (JSON, OPTAX, TORCH, HF_TRAINER)}
"""A new target is one file, and one name here."""

REPLACEABLE = (TUNED, README, MODULE, "__pycache__")
"""What an export may leave in its folder; `overwrite` replaces this and nothing else."""


def export(
    artefact: Artefact, target: str, folder: str | Path, *, overwrite: bool = False
) -> list[Path]:
    """Writes `artefact` for `target` into `folder`, all files or none.

    Args:
        artefact: what to export.
        target: a name of `EXPORTERS`.
        folder: absent or empty, unless `overwrite`.
        overwrite: replace an older export; other files are never replaced.

    Returns:
        The paths of the files.

    Raises:
        ArtefactError: an unknown target, a folder that isn't empty, a folder with other files.
    """
    if target not in EXPORTERS:
        raise ArtefactError(
            "export", [unknown("target", target, "target", target, list(EXPORTERS))]
        )
    folder = Path(folder)
    if not overwrite and folder.is_dir() and any(folder.iterdir()):
        cure = "name another, or overwrite it (overwrite=True)"
        raise ArtefactError("export", [Fault("folder", str(folder), "is not empty", cure)])
    return replace_folder(folder, EXPORTERS[target].files(artefact), REPLACEABLE)
