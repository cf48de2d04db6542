"""The folder of a training: what lies where, and that nothing is lost or mixed up."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from metatune.artefact import INITIALISATION
from metatune.fit.run_folder import RunFolder, RunFolderError, replace

FORMAT: Final = "metatune-training"
VERSION: Final = 1


@dataclass(frozen=True)
class TrainingFolder:
    """Paths of a training.

    Attributes:
        path: the folder.
    """

    path: Path

    @property
    def settings(self) -> Path:
        """What is trained, written first: a folder that has it holds a training."""
        return self.path / "training.json"

    @property
    def recipe(self) -> Path:
        """The resolved recipe."""
        return self.path / "recipe.yaml"

    @property
    def tuned(self) -> Path:
        """The schedules that it was trained at, where they were an artefact's."""
        return self.path / "tuned.json"

    @property
    def start(self) -> Path:
        """The weights that it started from, where they were tuned."""
        return self.path / INITIALISATION

    @property
    def tensors(self) -> Path:
        """What of these schedules isn't in `tuned`."""
        return self.path / "tuned.safetensors"

    @property
    def tensorboard(self) -> Path:
        """Event files."""
        return self.path / "tensorboard"

    @property
    def checkpoints(self) -> Path:
        """All that is needed to go on bit for bit."""
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        """The trained model as Hugging Face loads it."""
        return self.path / "model"

    @property
    def result(self) -> Path:
        """What came out; written last: a folder that has it holds a finished training."""
        return self.path / "result.json"

    @property
    def metrics(self) -> RunFolder:
        """A line of JSON for each stretch of steps and each evaluation, as those of a search."""
        return RunFolder(self.path)

    def finished(self) -> dict[str, Any] | None:
        """The result, if there is one."""
        return json.loads(self.result.read_bytes()) if self.result.exists() else None


def usable(path: Path, *, resume: bool, overwrite: bool) -> TrainingFolder:
    """The folder of a training; nothing is written yet.

    Raises:
        RunFolderError: it can't be used as asked.
    """
    folder = TrainingFolder(path)
    if resume and overwrite:
        raise RunFolderError("--resume and --overwrite exclude each other: give one of them")
    if path.exists() and not path.is_dir():
        raise RunFolderError(f"--out {path}: is a file; give a folder")
    holds = folder.settings.exists()
    if resume and not holds:
        raise RunFolderError(
            f"--out {path}: holds no training to resume; leave --resume out to begin one"
        )
    if holds and not (resume or overwrite):
        raise RunFolderError(
            f"--out {path}: holds a training already; --resume to go on with it, --overwrite to "
            "delete it, or give another folder"
        )
    if not holds and path.exists() and any(path.iterdir()):
        found = ", ".join(sorted(entry.name for entry in path.iterdir())[:3])
        raise RunFolderError(
            f"--out {path}: is not empty and holds no training (it has {found}); give a new folder"
        )
    return folder


def begin(
    folder: TrainingFolder,
    settings: Mapping[str, Any],
    files: Mapping[Path, str | bytes],
    *,
    resume: bool,
) -> None:
    """Makes a usable folder ready.

    Args:
        folder: of `usable`.
        settings: all that the training follows from, by the name of the choice.
        files: further contents to write.
        resume: go on with the training that is in it; another one in it is deleted otherwise.

    Raises:
        RunFolderError: the training that is in it is another one.
    """
    if resume:
        _refuse_other(folder, settings)
    else:
        if folder.settings.exists():
            _delete(folder)
        folder.path.mkdir(parents=True, exist_ok=True)
        document = {"format": FORMAT, "version": VERSION, "settings": dict(settings)}
        replace(folder.settings, json.dumps(document, indent=1) + "\n")
    # Also of one that goes on: it may have been killed before they were written.
    for path, content in files.items():
        replace(path, content)


def _refuse_other(folder: TrainingFolder, now: Mapping[str, Any]) -> None:
    then = json.loads(folder.settings.read_bytes())["settings"]
    now = json.loads(json.dumps(now))
    changed = [key for key in sorted({*then, *now}) if then.get(key) != now.get(key)]
    if changed:
        lines = [f"  {key}: {then.get(key)!r} then, {now.get(key)!r} now" for key in changed]
        raise RunFolderError(
            f"--out {folder.path}: holds another training, which can't be resumed as this one; "
            "give the same recipe and options, or another folder\n" + "\n".join(lines)
        )


def _delete(folder: TrainingFolder) -> None:
    """Deletes what a training writes, and nothing else; its settings last."""
    for path in (folder.tensorboard, folder.checkpoints, folder.model, partial(folder.model)):
        if path.exists():
            shutil.rmtree(path)
    tuned = (folder.tuned, folder.tensors, folder.start)
    for path in (folder.result, folder.metrics.metrics, folder.recipe, *tuned):
        path.unlink(missing_ok=True)
    folder.tensors.unlink(missing_ok=True)
    folder.settings.unlink()


def partial(path: Path) -> Path:
    """Where a folder is written before it is put in its place."""
    return path.with_name(path.name + ".partial")
