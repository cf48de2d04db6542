"""Climbs a ladder: what is tuned and the default, carried to each rung and trained there."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax

from metatune import artefact
from metatune.artefact import Artefact
from metatune.fit.artefact_folder import write_artefact
from metatune.fit.inputs import inputs
from metatune.fit.making import artefact_of
from metatune.fit.run_folder import RunFolder, RunFolderError
from metatune.inner import InnerTraining, prepare
from metatune.inner.size import refuse_larger_than_memory
from metatune.ladder import judging
from metatune.ladder.candidates import (
    DEFAULT,
    LOW,
    Candidate,
    candidates,
    further,
    leveled,
    sources,
)
from metatune.ladder.document import Measured, document
from metatune.ladder.measuring import (
    Followed,
    following,
    held_out_loss,
    operations,
    parameters,
)
from metatune.ladder.prediction import predict
from metatune.ladder.progress import Display
from metatune.ladder.record import Record
from metatune.ladder.rungs import PROXY, Rung, recipe_at, refuse_no_ladder
from metatune.runs import stops
from metatune.runs.inputs import refuse_changed
from metatune.runs.lock import locked
from metatune.train.matching import refuse_misfit
from metatune.transfer.carried import Carried, carry
from metatune.transfer.rules import DEFAULT as DEFAULT_RULE
from metatune.transfer.sides import of_artefact, of_training


@dataclass(frozen=True, eq=False)
class Step:
    """A rung as it is trained.

    Attributes:
        rung: its sizes.
        training: at these.
        schedules: by name, carried to it.
    """

    rung: Rung
    training: InnerTraining
    schedules: Mapping[str, Carried]

    def followed(self, candidate: Candidate) -> Followed:
        """The training by a candidate's schedules."""
        tuned = leveled(self.schedules[candidate.schedules].artefact, candidate.level)
        return following(self.training, tuned)


@dataclass(frozen=True, eq=False)
class Ladder:
    """All that is to be trained.

    Attributes:
        folder: of the run.
        tuned: its artefact.
        rule: that carries.
        steps: the rungs, the proxy first.
        candidates: at each.
        seeds: of the trainings, none of which the run has used.
    """

    folder: RunFolder
    tuned: Artefact
    rule: str
    steps: Sequence[Step]
    candidates: Sequence[Candidate]
    seeds: Sequence[int]

    @property
    def identity(self) -> dict[str, Any]:
        """What its numbers depend on besides rung, candidate and seed."""
        return {
            "rule": self.rule,
            "recipe_sha256": self.tuned.provenance["recipe_sha256"],
            "best_outer_step": self.tuned.result["best_outer_step"],
        }

    def work(self, step: Step) -> float:
        """Of a training there, in trainings of the proxy."""
        return operations(step.training) / operations(self.steps[0].training)

    def left(self, record: Record) -> float:
        """Work that isn't done yet."""
        return sum(
            self.work(step)
            for step in self.steps
            for candidate in self.candidates
            for seed in self.seeds
            if record.loss(step.rung, candidate, seed) is None
        )


def ladder(
    run: Path,
    proxy: Callable[[RunFolder], InnerTraining],
    rungs: Sequence[Rung],
    rule: str | None,
    seeds: int,
) -> Ladder:
    """Prepares all rungs, and refuses what can't be climbed before anything is trained.

    Args:
        run: a run folder that is finished.
        proxy: prepares the training of its recipe.
        rungs: the proxy first.
        rule: a name of `transfer.rules.RULES`; the default one for None.
        seeds: trainings of each candidate at each rung.

    Raises:
        RunFolderError: it is no finished run, or its data have changed.
        RecipeError: its recipe has no other sizes, or a rung doesn't fit into memory.
        ArtefactError: what was tuned can't be carried, or the rule says nothing of it.
    """
    folder = RunFolder(run)
    if not folder.recipe.is_file():
        raise RunFolderError(f"{run}: is no run folder; give the folder that metatune fit wrote")
    tuned = artefact.load(folder.path)
    if tuned.result.get("status") != "complete":
        raise RunFolderError(f"{run}: its search isn't finished; go on with it by --resume first")
    own = proxy(folder)
    refuse_no_ladder(own.recipe)
    refuse_changed(folder.path, inputs(own))
    default = artefact_of(own, own.initial_eta(), tuned.result)
    own_schedules = sources(default, tuned)
    steps = []
    for rung in rungs:
        training = own
        if rung != PROXY:
            training = prepare(recipe_at(own.recipe, rung), rung.name)
        refuse_larger_than_memory(training.initialise, training.model.family)
        side = of_training(training, rung.name)
        schedules = {
            name: carry(each, of_artefact(each), side, None if rung == PROXY else rule)
            for name, each in own_schedules.items()
        }
        for carried in schedules.values():
            refuse_misfit(carried.artefact, training, rung.name)
        steps.append(Step(rung, training, schedules))
    first = own.recipe.outer.test.seeds
    return Ladder(
        folder,
        tuned,
        rule or DEFAULT_RULE,
        steps,
        candidates(own_schedules),
        tuple(range(first, first + seeds)),
    )


def climb(ladder: Ladder, display: Display) -> dict[str, Any]:
    """Trains what isn't trained yet, rung by rung, and writes what it comes to.

    Before a rung is trained its gain is predicted by those below, with the time. A climb that was
    stopped or killed goes on where it was.

    Args:
        ladder: what to train.
        display: is told of everything.

    Returns:
        The document of the artefact's `transfer.json`, which is there after each rung.
    """
    with locked(ladder.folder.path):
        record = Record(ladder.folder.path, ladder.identity)
        record.mend()
        found: list[Measured] = []
        written: dict[str, Any] = {}
        for step in ladder.steps:
            if not (record.losses(step.rung) or step.rung.name in record.predictions()):
                _predict(step, found, record, display)
            _train(ladder, step, record, display)
            found.append(_measured(ladder, step, record, found))
            display.say(found[-1].sentence)
            written = document(ladder.rule, ladder.tuned, found, record.predictions())
            write_artefact(ladder.folder, replace(ladder.tuned, transfer=written))
    return written


def seconds(ladder: Ladder, record: Record) -> float:
    """What the rest takes, about: by a segment of the proxy's training, after its compilation."""
    followed = ladder.steps[0].followed(DEFAULT)
    recipe = followed.training.recipe
    short = min(followed.segment, recipe.inner.steps)
    took = []
    for _ in range(2):
        began = time.monotonic()
        held_out_loss(followed, ladder.seeds[0], steps=short)
        took.append(time.monotonic() - began)
    return ladder.left(record) * took[-1] * recipe.inner.steps / short


def _predict(step: Step, found: Sequence[Measured], record: Record, display: Display) -> None:
    if (made := predict([each.point for each in found], operations(step.training))) is None:
        return
    at = datetime.now(UTC).isoformat(timespec="seconds")
    record.predict(step.rung.name, {**judging.as_json(made), "made": at})
    display.say(
        f"{step.rung.name}: a gain of {made.gain:.4f} is predicted, {made.low:.4f} to "
        f"{made.high:.4f}, by {len(found)} rungs below"
        + ("" if made.line else " (which don't lie on a line)")
    )


def _train(ladder: Ladder, step: Step, record: Record, display: Display) -> None:
    """All candidates, and further levels of the baselines as long as they get better."""
    for line in step.schedules["tuned"].done:
        display.say(line.replace("*", ""))
    more: Sequence[Candidate] = ladder.candidates
    while more:
        _train_all(ladder, step, more, record, display)
        more = further(record.complete(step.rung, ladder.seeds))
    jax.clear_caches()  # programs of a rung serve no other


def _train_all(
    ladder: Ladder,
    step: Step,
    candidates: Sequence[Candidate],
    record: Record,
    display: Display,
) -> None:
    """All of a seed, then of the next: what is left out at a kill is balanced."""
    followed: dict[Candidate, Followed] = {}
    for number, seed in enumerate(ladder.seeds, 1):
        for candidate in candidates:
            if record.loss(step.rung, candidate, seed) is not None:
                continue
            if candidate not in followed:
                followed[candidate] = step.followed(candidate)
            what = f"{step.rung.name}, {candidate.name}, seed {number} of {len(ladder.seeds)}"
            steps = step.training.recipe.inner.steps
            listener = display.training(what, steps, ladder.work(step))
            loss = held_out_loss(followed[candidate], seed, listener=listener)
            with stops.held():
                record.add(step.rung, candidate, seed, loss)
            display.done()


def _measured(ladder: Ladder, step: Step, record: Record, before: Sequence[Measured]) -> Measured:
    losses = record.complete(step.rung, ladder.seeds)
    return Measured(
        rung=step.rung,
        parameters=parameters(step.training),
        steps=step.training.recipe.inner.steps,
        operations=operations(step.training),
        seeds=len(ladder.seeds),
        losses=losses,
        judged=judging.judge(losses, before[0].losses if before else None, LOW),
        left=step.schedules["tuned"].left,
        undone=step.schedules["tuned"].undone,
    )
