"""The artefact in a run's folder: written while the search is on, looked at when it goes on."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metatune import artefact
from metatune.fit.run_folder import RunFolder, RunFolderError, refuse_other_recipe, same_end
from metatune.recipe.schema import Recipe
from metatune.report.artefact_readme import readme
from metatune.runs import processes, stops
from metatune.runs.inputs import refuse_changed
from metatune.runs.space import DiskFull, is_full, shortage


def write_artefact(folder: RunFolder, tuned: artefact.Artefact) -> artefact.Artefact:
    """Writes an artefact into a run folder; what is there of the same schedules stays.

    What is there of others goes: a certificate, a ledger, a verdict, and the simple schedules that
    it left beside the artefact. Of several processes the first writes.

    Raises:
        DiskFull: there is no room.
    """
    tuned = artefact.with_certificate(tuned, artefact.read_certificate(folder.artefact))
    if tuned.transfer is None:
        tuned = artefact.with_ledger(tuned, artefact.read_ledger(folder.artefact))
    if tuned.verdict is None:
        tuned = artefact.with_verdict(tuned, artefact.read_verdict(folder.artefact))
    if not processes.first():
        return tuned
    try:
        with stops.held():
            if tuned.verdict is None and folder.simple.exists():
                shutil.rmtree(folder.simple)
            artefact.write(folder.artefact, tuned, readme(tuned))
    except OSError as error:
        if not is_full(error):
            raise
        raise DiskFull(shortage(folder.artefact, _needed(folder, tuned))) from error
    return tuned


def _needed(folder: RunFolder, tuned: artefact.Artefact) -> int:
    """Bytes that an artefact takes on the disk: of its numbers at least, else as much as now."""
    numbers = sum(map(len, artefact.portable_files(tuned).values()))
    there = folder.artefact.iterdir() if folder.artefact.is_dir() else ()
    return max(numbers, sum(512 * file.stat().st_blocks for file in there))


def complete(run: Path) -> tuple[RunFolder, artefact.Artefact]:
    """A run that is finished, and what it tuned.

    Raises:
        RunFolderError: it is no run, or its search isn't finished.
        ArtefactError: its artefact can't be read.
    """
    folder = RunFolder(run)
    # An artefact, and a training that follows one, have a recipe, too.
    if not folder.recipe.is_file() or (folder.path / "tuned.json").is_file():
        raise RunFolderError(f"{run}: is no run folder; give the folder that metatune fit wrote")
    tuned = artefact.load(folder.path)
    if tuned.result.get("status") != "complete":
        raise RunFolderError(f"{run}: its search isn't finished; go on with it by --resume first")
    return folder, tuned


def finished(
    folder: RunFolder, recipe: Recipe, given: Mapping[str, Any]
) -> artefact.Artefact | None:
    """The artefact of the run in a folder, if it is complete; nothing is written.

    Args:
        folder: of a run.
        recipe: what the run is to go on with.
        given: hashes of what it is made of.

    Returns:
        The artefact; None where the run goes on, also because its recipe was to end later.

    Raises:
        RunFolderError: the run can't go on with these.
    """
    refuse_other_recipe(folder, recipe)
    refuse_changed(folder.path, given)
    if not (folder.artefact / "tuned.json").exists():
        return None
    found = artefact.load(folder.artefact)
    if found.result.get("status") != "complete":
        return None
    grown = found.origin is not None and not same_end(found.origin.recipe, recipe)
    return None if grown else found
