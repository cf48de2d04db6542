"""A run's folder: what lies where, and that nothing is lost or half-written."""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from metatune.recipe import reading, writing
from metatune.recipe.schema import Outer, Recipe

WITHOUT_EFFECT = re.compile(
    r"outer\.(phases\[\d+\]\.)?estimator\.(checkpoints\.|parallel$|timeout_seconds$)"
)
"""Keys that change neither trainings nor hypergradients: they may change before a run goes on."""


class RunFolderError(ValueError):
    """A folder that can't be used as asked."""


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run.

    Attributes:
        path: the folder.
    """

    path: Path

    @property
    def recipe(self) -> Path:
        """The resolved recipe."""
        return self.path / "recipe.yaml"

    @property
    def metrics(self) -> Path:
        """A line of JSON for each point of the search; see `metatune.fit.points`."""
        return self.path / "metrics.jsonl"

    @property
    def commands(self) -> Path:
        """A line of JSON for each training of an external trainer."""
        return self.path / "commands.jsonl"

    @property
    def expectation(self) -> Path:
        """What the run was expected to take, and what it took."""
        return self.path / "expected.json"

    @property
    def tensorboard(self) -> Path:
        """Event files."""
        return self.path / "tensorboard"

    @property
    def checkpoints(self) -> Path:
        """All that is needed to go on bit for bit."""
        return self.path / "checkpoints"

    @property
    def scratch(self) -> Path:
        """States of the inner training while they are needed; nothing of it stays."""
        return self.path / "scratch"

    @property
    def artefact(self) -> Path:
        """The tuned schedules."""
        return self.path / "artefact"

    @contextlib.contextmanager
    def cleared_scratch(self) -> Iterator[None]:
        """Begins and ends without scratch, also where an earlier run was killed and left some."""
        self.clear_scratch()
        try:
            yield
        finally:
            self.clear_scratch()

    def clear_scratch(self) -> None:
        """Removes the scratch, if there is any."""
        if self.scratch.exists():
            shutil.rmtree(self.scratch)

    def holds_run(self) -> bool:
        """Whether a run was begun here."""
        return self.recipe.exists()

    def outer(self) -> Outer:
        """The search of the run that was begun here.

        Raises:
            RecipeError: its recipe can't be read.
        """
        return reading.read(self.recipe).outer

    def day(self) -> date | None:
        """The day that the chat template of the run that was begun here is told; None for none.

        Raises:
            RecipeError: its recipe can't be read.
        """
        if not self.recipe.exists():
            return None
        kept = reading.read(self.recipe).data.date
        return None if kept is None else date.fromisoformat(kept)

    def append_metrics(self, line: Mapping[str, Any]) -> None:
        """Adds a line to the metrics."""
        _append(self.metrics, line)

    def append_command(self, line: Mapping[str, Any]) -> None:
        """Adds a line to the log of an external trainer."""
        _append(self.commands, line)

    def read_commands(self) -> list[dict[str, Any]]:
        """The log of an external trainer so far, as `read_metrics`."""
        return _whole_lines(self.commands)

    def read_metrics(self) -> list[dict[str, Any]]:
        """The metrics so far; a last line that was cut off is left out."""
        return _whole_lines(self.metrics)

    def forget_metrics_from(self, step: int) -> None:
        """Drops the lines of points from `step` on, which are about to be reached again."""
        lines = [json.dumps(line) for line in self.read_metrics() if line["step"] < step]
        replace(self.metrics, "".join(line + "\n" for line in lines))


def _append(path: Path, line: Mapping[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines(keepends=True) if line[-1] == "\n"]


def replace(path: Path, content: str | bytes) -> None:
    """Writes a file beside its place, then renames it; text in UTF-8."""
    beside = path.with_name(path.name + ".partial")
    beside.write_bytes(content.encode() if isinstance(content, str) else content)
    os.replace(beside, path)


def usable(path: Path, *, resume: bool, overwrite: bool) -> RunFolder:
    """The folder of a run; nothing is written yet.

    Args:
        path: the folder.
        resume: whether the run that is in it is to go on.
        overwrite: whether the run that is in it is to be deleted.

    Raises:
        RunFolderError: it holds a run and neither was asked for, or none to resume.
    """
    folder = RunFolder(path)
    if resume and overwrite:
        raise RunFolderError("--resume and --overwrite exclude each other: give one of them")
    if path.exists() and not path.is_dir():
        raise RunFolderError(f"--out {path}: is a file; give a folder")
    if resume and not folder.holds_run():
        raise RunFolderError(
            f"--out {path}: holds no run to resume; leave --resume out to begin one"
        )
    if folder.holds_run() and not (resume or overwrite):
        raise RunFolderError(
            f"--out {path}: holds a run already; --resume to go on with it, --overwrite to "
            "delete it, or give another folder"
        )
    return folder


def open_run(path: Path, recipe: Recipe, *, resume: bool, overwrite: bool) -> RunFolder:
    """Makes a folder ready for a run.

    Args:
        path: the folder; made if missing.
        recipe: the resolved recipe, written into it.
        resume: go on with the run that is in it.
        overwrite: delete the run that is in it.

    Raises:
        RunFolderError: the folder holds a run and neither was asked for; or holds other things; or
            there is nothing to resume, or a run of another recipe.
    """
    folder = usable(path, resume=resume, overwrite=overwrite)
    if resume:
        _refuse_other_recipe(folder, recipe)
        replace(folder.recipe, writing.to_yaml(recipe))
        return folder
    if folder.holds_run():
        _delete_run(folder)
    if path.exists() and any(path.iterdir()):
        found = ", ".join(sorted(entry.name for entry in path.iterdir())[:3])
        raise RunFolderError(
            f"--out {path}: is not empty and holds no run (it has {found}); give a new folder"
        )
    path.mkdir(parents=True, exist_ok=True)
    replace(folder.recipe, writing.to_yaml(recipe))
    return folder


def _refuse_other_recipe(folder: RunFolder, recipe: Recipe) -> None:
    then = writing.flat(yaml.safe_load(folder.recipe.read_text(encoding="utf-8")))
    now = writing.flat(yaml.safe_load(writing.to_yaml(recipe)))
    changed = [
        key
        for key in sorted({*then, *now})
        if then.get(key) != now.get(key) and not WITHOUT_EFFECT.match(key)
    ]
    if changed:
        lines = [f"  {key}: {then.get(key)!r} then, {now.get(key)!r} now" for key in changed]
        raise RunFolderError(
            f"--out {folder.path}: holds a run of another recipe, which can't be resumed with "
            "this one; resume with its own recipe.yaml, or give another folder\n" + "\n".join(lines)
        )


def _delete_run(folder: RunFolder) -> None:
    """Deletes what a run writes, and nothing else; its recipe last, so that a kill is harmless."""
    folder.clear_scratch()
    for path in (folder.tensorboard, folder.checkpoints, folder.artefact):
        shutil.rmtree(path, ignore_errors=False) if path.exists() else None
    for path in (folder.metrics, folder.commands, folder.expectation):
        path.unlink(missing_ok=True)
    folder.recipe.unlink()
