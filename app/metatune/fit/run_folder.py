"""A run's folder: what lies where, and that nothing is lost or half-written."""

import contextlib
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from metatune.artefact.files import SIMPLE
from metatune.recipe import reading, writing
from metatune.recipe.faults import RecipeError
from metatune.recipe.moved import refusals
from metatune.recipe.schema import OuterSpec, Recipe
from metatune.runs import processes
from metatune.runs.faults import RunFolderError, differing, of_out, then_and_now
from metatune.runs.files import append_line, mend, whole_lines
from metatune.runs.folder import Opened, opened, refuse_unusable
from metatune.runs.kinds import RUN
from metatune.runs.paths import Folder

PATIENCE = "outer.patience"
GROWING = ("outer.steps", PATIENCE, "outer.test.seeds")
"""Fields that end a run and have no other effect, besides the steps of the last phase."""
MAY_GROW = (
    "outer.steps (of phases, those of the last), outer.patience and outer.test.seeds may grow"
)

WITHOUT_EFFECT = re.compile(
    r"outer\.(phases\[\d+\]\.)?estimator\.checkpoints\.|trainer\.(parallel|timeout_seconds)$"
    r"|devices(\.|$)"
)
"""Keys that change neither trainings nor hypergradients: they may change before a run goes on.

Other devices round sums otherwise, which a run may go on with.
"""


class RunFolder(Folder):
    """Paths of a run; a line of its metrics is a point, see `metatune.fit.searching.points`."""

    @property
    def commands(self) -> Path:
        """A line of JSON for each training of an external trainer."""
        return self.path / "commands.jsonl"

    @property
    def expectation(self) -> Path:
        """What the run was expected to take, and what it took."""
        return self.path / "expected.json"

    @property
    def scratch(self) -> Path:
        """States of the inner training while they are needed; nothing of it stays."""
        return self.path / "scratch"

    @property
    def artefact(self) -> Path:
        """The tuned schedules."""
        return self.path / "artefact"

    @property
    def simple(self) -> Path:
        """The simple schedules that a verdict found to keep the gain of the tuned ones."""
        return self.path / SIMPLE

    @contextlib.contextmanager
    def cleared_scratch(self) -> Iterator[None]:
        """Begins and ends without scratch, also where an earlier run was killed and left some."""
        self.clear_scratch()
        try:
            yield
        finally:
            self.clear_scratch()

    def clear_scratch(self) -> None:
        """Removes the scratch, if there is any; of several processes the first does."""
        if processes.first() and self.scratch.exists():
            shutil.rmtree(self.scratch)

    def outer(self) -> OuterSpec:
        """The search of the run that was begun here.

        Raises:
            RecipeError: its recipe can't be read.
        """
        return reading.read(self.recipe).outer

    def append_command(self, line: Mapping[str, Any]) -> None:
        """Adds a line to the log of an external trainer."""
        append_line(self.commands, line)

    def read_commands(self) -> list[dict[str, Any]]:
        """The log of an external trainer so far, as of `read_metrics`."""
        return whole_lines(self.commands, "delete the line: its training is done again")


def usable(
    path: Path, *, resume: bool, overwrite: bool, say: Callable[[str], None] = print
) -> RunFolder:
    """The folder of a run; arguments and what is refused as of `refuse_unusable`."""
    refuse_unusable(path, RUN, resume=resume, overwrite=overwrite, say=say)
    return RunFolder(path)


@contextlib.contextmanager
def open_run(
    path: Path,
    recipe: Recipe,
    given: Mapping[str, Any],
    *,
    resume: bool,
    overwrite: bool,
    say: Callable[[str], None] = print,
) -> Iterator[Opened]:
    """Holds a folder that is ready for a run.

    Args:
        path: the folder; made if missing.
        recipe: the resolved recipe, written into it.
        given: hashes of what the run is made of.
        resume: go on with the run that is in it.
        overwrite: replace the run that is in it.
        say: is told what a process that was killed has left.

    Raises:
        RunFolderError: the folder holds a run and neither was asked for; or holds other things, or
            is in use; or there is nothing to resume, or a run of another recipe or other data.
    """
    folder = RunFolder(path)
    files = {folder.recipe.name: writing.to_yaml(recipe)}
    check = partial(refuse_other_recipe, folder, recipe)
    options: dict[str, Any] = {"resume": resume, "overwrite": overwrite, "say": say}
    with opened(path, RUN, files, given, check=check, **options) as held:
        for log in (folder.metrics, folder.commands):
            mend(log)
        yield held


def refuse_other_recipe(folder: RunFolder, recipe: Recipe) -> None:
    """Refuses a recipe that the run in a folder can't go on with.

    Raises:
        RecipeError: the run's own recipe is of an older metatune, with fields that have moved.
        RunFolderError: a field has another value, and isn't one of those that may grow.
    """
    try:
        tree = yaml.safe_load(folder.recipe.read_bytes())
    except yaml.YAMLError as error:
        raise RunFolderError(
            f"{folder.recipe}: is damaged ({error}); put it back from a copy, or begin anew"
        ) from None
    if moved := tuple(refusals(tree)):
        raise RecipeError(str(folder.recipe), moved)
    then, now = _flat(tree), _flat(recipe)
    changed = [
        key
        for key in differing(then, now)
        if not (WITHOUT_EFFECT.match(key) or _grows(key, then, now, recipe))
    ]
    if changed:
        raise of_out(
            folder.path,
            "holds a run of another recipe, which can't be resumed with this one; resume with its "
            f"own recipe.yaml, or give another folder; {MAY_GROW}\n"
            + then_and_now(changed, then, now),
        )


def same_end(then: str, now: Recipe) -> bool:
    """Whether nothing that may grow has grown from a recipe, as YAML, to another."""
    before, after = _flat(yaml.safe_load(then)), _flat(now)
    return all(WITHOUT_EFFECT.match(key) for key in differing(before, after))


def _flat(recipe: Recipe | Mapping[str, Any]) -> dict[str, Any]:
    """As YAML has it, by dotted path."""
    tree = yaml.safe_load(writing.to_yaml(recipe)) if isinstance(recipe, Recipe) else recipe
    return writing.flat(tree)


def _grows(key: str, then: Mapping[str, Any], now: Mapping[str, Any], recipe: Recipe) -> bool:
    """Whether a field may grow while a run goes on, and does."""
    last = len(recipe.outer.phases or ()) - 1
    if key not in (*GROWING, f"outer.phases[{last}].steps"):
        return False
    before, after = then.get(key), now.get(key)
    if key == PATIENCE:  # none is for ever
        return before is not None and (after is None or after > before)
    return before is not None and after is not None and after > before


__all__ = [
    "RunFolder",
    "RunFolderError",
    "open_run",
    "refuse_other_recipe",
    "same_end",
    "usable",
]
