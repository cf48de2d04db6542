"""The folder of a training: what lies where, and that nothing is lost or mixed up."""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from metatune.artefact import INITIALISATION
from metatune.recipe.faults import RecipeError
from metatune.recipe.moved import refusals_of_flat
from metatune.runs.faults import RunFolderError, differing, of_out, then_and_now
from metatune.runs.files import mend
from metatune.runs.folder import Opened, opened, refuse_unusable
from metatune.runs.inputs import refuse_changed
from metatune.runs.kinds import TRAINING
from metatune.runs.paths import Folder

FORMAT: Final = "metatune-training"
VERSION: Final = 1


class TrainingFolder(Folder):
    """Paths of a training; a line of its metrics is a block of steps, or an evaluation."""

    @property
    def settings(self) -> Path:
        """What is trained, written first: a folder that has it holds a training."""
        return self.path / "training.json"

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
    def model(self) -> Path:
        """The trained model as Hugging Face loads it."""
        return self.path / "model"

    @property
    def result(self) -> Path:
        """What came out; written last: a folder that has it holds a finished training."""
        return self.path / "result.json"

    def finished(self) -> dict[str, Any] | None:
        """The result, if there is one."""
        return json.loads(self.result.read_bytes()) if self.result.exists() else None


def usable(
    path: Path, *, resume: bool, overwrite: bool, say: Callable[[str], None] = print
) -> TrainingFolder:
    """The folder of a training; arguments and what is refused as of `refuse_unusable`."""
    refuse_unusable(path, TRAINING, resume=resume, overwrite=overwrite, say=say)
    return TrainingFolder(path)


@contextlib.contextmanager
def open_training(
    folder: TrainingFolder,
    settings: Mapping[str, Any],
    files: Mapping[str, str | bytes],
    given: Mapping[str, Any],
    *,
    resume: bool,
    overwrite: bool,
    say: Callable[[str], None] = print,
) -> Iterator[Opened]:
    """Holds a folder that is ready for a training.

    Args:
        folder: made if missing.
        settings: all that the training follows from, by the name of the choice.
        files: further contents to write, by name.
        given: hashes of what the training is made of.
        resume: go on with the training that is in it.
        overwrite: replace the training that is in it.
        say: is told what a process that was killed has left.

    Raises:
        RunFolderError: it can't be used as asked, or the training that is in it is another one.
    """
    document = {"format": FORMAT, "version": VERSION, "settings": dict(settings)}
    files = {**files, folder.settings.name: json.dumps(document, indent=1) + "\n"}
    check = partial(refuse_other, folder, settings)
    options: dict[str, Any] = {"resume": resume, "overwrite": overwrite, "say": say}
    with opened(folder.path, TRAINING, files, given, check=check, **options) as held:
        mend(folder.metrics)
        yield held


def finished(
    folder: TrainingFolder, settings: Mapping[str, Any], given: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The result of the training in a folder, if it is finished; nothing is written.

    Arguments and what is refused as of `open_training`.
    """
    refuse_other(folder, settings)
    refuse_changed(folder.path, given)
    return folder.finished()


def refuse_other(folder: TrainingFolder, now: Mapping[str, Any]) -> None:
    """Refuses settings that the training in a folder can't go on with.

    Raises:
        RecipeError: they are of an older metatune, with fields that have moved.
        RunFolderError: one has another value, or what was written can't be read.
    """
    try:
        then = json.loads(folder.settings.read_bytes())["settings"]
    except (ValueError, KeyError, TypeError) as error:
        raise RunFolderError(
            f"{folder.settings}: is damaged ({error}), so that it can't be told what is trained; "
            "begin anew with --overwrite, or in another folder"
        ) from None
    if moved := tuple(refusals_of_flat(then)):
        raise RecipeError(str(folder.settings), moved)
    now = json.loads(json.dumps(now))
    # Other devices round sums otherwise, which a training may go on with.
    if changed := [key for key in differing(then, now) if key.partition(".")[0] != "devices"]:
        raise of_out(
            folder.path,
            "holds another training, which can't be resumed as this one; give the same recipe and "
            "options, or another folder (its schedules depend on its steps, so that these can't "
            "grow)\n" + then_and_now(changed, then, now),
        )
