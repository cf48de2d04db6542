"""A search at a rung itself: what tuning there gains, which what is carried can be held against."""

import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from rich.console import Console

from metatune import artefact
from metatune.artefact import Artefact
from metatune.fit.outer_loop import fit
from metatune.fit.run_folder import RunFolder
from metatune.inner import InnerTraining
from metatune.ladder.candidates import Schedules
from metatune.ladder.preparing import Ladder, Step, with_candidates
from metatune.recipe.faults import RecipeError, unknown
from metatune.recipe.schema import FinalTestSpec
from metatune.transfer.carried import Carried
from metatune.transfer.rung import PROXY

FOLDER: Final = "retuned"
"""In the run folder: a run folder for each rung."""

ALL: Final = "all"


class Interrupted(KeyboardInterrupt):
    """A search at a rung was stopped, and can be gone on with."""


def chosen(ladder: Ladder, names: Sequence[str]) -> tuple[Step, ...]:
    """The rungs that are searched at.

    Args:
        ladder: the ladder.
        names: of its rungs above the proxy, or `all` for all of these.

    Raises:
        RecipeError: one is no rung.
    """
    above = {step.rung.name: step for step in ladder.steps if step.rung != PROXY}
    if ALL in names:
        return tuple(above.values())
    faults = [
        unknown("--retune", name, "rung", name, (*above, ALL))
        for name in names
        if name not in above
    ]
    if faults:
        raise RecipeError("transfer", faults)
    return tuple(above[name] for name in dict.fromkeys(names))


def search_work(ladder: Ladder, steps: Collection[Step]) -> float:
    """Seconds of the searches that aren't done yet: those of the run's own, by compute."""
    own = sum(line.get("seconds", 0.0) for line in ladder.folder.read_metrics())
    return own * sum(ladder.work(step) for step in steps if not _done(ladder, step))


def searched(ladder: Ladder, steps: Collection[Step], console: Console) -> Ladder:
    """The ladder with what searches at some of its rungs have found.

    Each is the recipe's own search, on the recipe at that size, from its own values: what whoever
    could afford it would do. It goes on where it was stopped.

    Args:
        ladder: the ladder.
        steps: of it, those that are searched at.
        console: where progress is shown.

    Raises:
        Interrupted: a search was.
        NotFinite: a training diverged.
    """
    found = {step.rung: _search(ladder, step, console) for step in steps}
    top = ladder.steps[-1]

    def equipped(step: Step) -> Step:
        if step.rung not in found:
            return step
        constants = step is top or "default constant" in {c.schedules for c in step.candidates}
        own: dict[Schedules, Carried] = {"retuned": Carried(found[step.rung], None)}
        schedules = {**step.schedules, **own}
        return with_candidates(replace(step, schedules=schedules), constants=constants)

    return replace(ladder, steps=[equipped(step) for step in ladder.steps])


def _search(ladder: Ladder, step: Step, console: Console) -> Artefact:
    out = _folder(ladder, step)
    say = f"searching at {step.rung.name}, in {out}"
    console.print(say, highlight=False, soft_wrap=True)
    outcome = fit(_training(step), out, resume=RunFolder(out).recipe.is_file(), console=console)
    if outcome.interrupted:
        raise Interrupted
    return outcome.artefact


def _training(step: Step) -> InnerTraining:
    """The training at a rung with the recipe's own search; the ladder measures its result."""
    training = step.training
    outer = replace(
        training.recipe.outer, robust=None, test=replace(FinalTestSpec(), seeds=1, sequences=1)
    )
    return replace(training, recipe=replace(training.recipe, outer=outer))


def _done(ladder: Ladder, step: Step) -> bool:
    folder = _folder(ladder, step)
    if not (folder / "artefact" / "tuned.json").is_file():
        return False
    return artefact.load(folder).result.get("status") == "complete"


def _folder(ladder: Ladder, step: Step) -> Path:
    return ladder.folder.path / FOLDER / re.sub(r"[^A-Za-z0-9.]+", "-", step.rung.key)
