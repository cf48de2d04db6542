"""`metatune train`: a whole training, from a recipe to a checkpoint to use."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from metatune import artefact
from metatune.artefact.demands import demands
from metatune.artefact.horizon import carried
from metatune.fit.inputs import inputs
from metatune.fit.telling import dataset_statistics
from metatune.inner import InnerTraining, rescaled
from metatune.inner.seeds import Purpose, model_key
from metatune.inner.size import refuse_larger_than_memory
from metatune.recipe import writing
from metatune.recipe.faults import Fault, RecipeError
from metatune.recipe.measures import sentence
from metatune.recipe.phases import resolved
from metatune.runs import processes, stops
from metatune.train import result
from metatune.train.averaging import averaged
from metatune.train.checkpoints import Position, TrainingCheckpoints
from metatune.train.folder import TrainingFolder, finished, open_training, usable
from metatune.train.learned_update import corrected
from metatune.train.loop import DEFAULT, SEGMENT, Intervals, TrainingLoop
from metatune.train.matching import refuse_misfit, remarks
from metatune.train.progress import Teller
from metatune.train.schedules import Schedules
from metatune.train.start import scaled, started


class FollowedArtefact(NamedTuple):
    """An artefact to train with.

    Attributes:
        schedules: the artefact, as it was tuned.
        sha256: its integrity hash.
    """

    schedules: artefact.Artefact
    sha256: str


class TrainingOutcome(NamedTuple):
    """What a training came to.

    Attributes:
        result: what `result.json` holds; None of an interrupted training.
        steps: done.
    """

    result: dict[str, Any] | None
    steps: int


def load(path: Path) -> FollowedArtefact:
    """Reads the artefact of a run.

    Raises:
        ArtefactError: there is none that can be read.
    """
    schedules = artefact.load(path)
    file = path if path.is_file() else artefact.folder_of(path) / "tuned.json"
    return FollowedArtefact(schedules, json.loads(file.read_bytes())["integrity"]["sha256"])


def train(
    training: InnerTraining,
    folder: TrainingFolder,
    tuned: FollowedArtefact | None = None,
    *,
    source: str = "recipe",
    steps: int | None = None,
    warmup: str = "fraction",
    test_seed: int = 0,
    intervals: Intervals = DEFAULT,
    keep: int = 2,
    resume: bool = False,
    overwrite: bool = False,
    console: Console | None = None,
) -> TrainingOutcome:
    """Trains, evaluates, and writes the model.

    Args:
        training: of the recipe, as `metatune.inner` prepares it.
        folder: of `folder.usable`.
        tuned: schedules to train at; None for the recipe's own.
        source: what to call the recipe in errors.
        steps: updates; the recipe's `inner.steps` by default, to which schedules stretch.
        warmup: whether a tuned warmup is kept in `steps` or in its `fraction` of training.
        test_seed: which of those that a result is measured by: initialisation and data order.
        intervals: what happens between steps.
        keep: checkpoints that stay.
        resume: go on with the training in `folder`.
        overwrite: replace the training in `folder`.
        console: where progress is shown.

    Returns:
        The result, or how far an interrupted training came.

    Raises:
        ArtefactError: the artefact doesn't fit the recipe.
        RecipeError: a number isn't above 0.
        RunFolderError: the folder holds another training.
        NotFinite: the training diverged; its last checkpoint is from before.
        DiskFull: what was written before is whole, and can be gone on with.
    """
    _refuse_not_positive(source, steps=steps, keep=keep, **intervals._asdict())
    if steps is not None:
        training = rescaled(training, steps)
    refuse_larger_than_memory(training)
    recipe, schedules = training.recipe, None
    if tuned is not None:
        refuse_misfit(tuned.schedules, training, source)
        schedules = carried(tuned.schedules, recipe.inner.steps, warmup)
        training = scaled(started(training, schedules), schedules)
    training = corrected(training, schedules and schedules.learned_update)
    training = averaged(training, schedules and schedules.averaging)
    settings = writing.flat(writing.to_tree(recipe)) | {
        "--with": tuned and tuned.sha256,
        "--warmup": warmup,
        "--test-seed": test_seed,
    }
    if schedules is not None and (asked := demands(schedules)) is not None:
        settings["--rule"] = asked.rule
    files: dict[str, str | bytes] = {folder.recipe.name: writing.to_yaml(recipe)}
    if schedules is not None:
        files |= artefact.portable_files(schedules)
    console, given = console or Console(), inputs(training)
    options: dict[str, Any] = {
        "resume": resume,
        "overwrite": overwrite,
        "say": partial(console.print, highlight=False, soft_wrap=True),
    }
    usable(folder.path, **options)
    if resume and (done := finished(folder, settings, given)):
        options["say"](f"{folder.path}: this training is finished; nothing is left to do")
        return TrainingOutcome(done, done["steps"])
    segment = getattr(resolved(recipe.outer)[0].estimator, "segment", SEGMENT)
    loop = TrainingLoop(
        training,
        Schedules(training, schedules, segment),
        test_seed=test_seed,
        segment=segment,
        intervals=intervals,
    )
    key = model_key(recipe.seed, Purpose.TEST, test_seed)
    with (
        stops.listening(),
        open_training(folder, settings, files, given, **options) as held,
        TrainingCheckpoints(folder.checkpoints, keep, held.checkpointed) as checkpoints,
    ):
        position = checkpoints.latest(training.shapes(), options["say"])
        position = position or Position(0, training.placed(training.initialise(key)))
        units = sentence(recipe)
        teller = Teller(folder, console, units=units, steps=loop.steps, done=position.step)
        with teller, stops.held(teller.say, raises=False) as hold:
            _announce(teller.say, loop, tuned, position.step)
            teller.say(units)
            position, losses = loop.run(position, checkpoints, teller, hold)
            if processes.stop_together(hold.asked) or losses is None:
                return TrainingOutcome(None, position.step)
        written = result.write(
            folder,
            training,
            position,
            losses,
            test_seed=test_seed,
            artefact_sha256=tuned and tuned.sha256,
        )
    return TrainingOutcome(written, position.step)


def _announce(
    say: Callable[[str], None], loop: TrainingLoop, tuned: FollowedArtefact | None, done: int
) -> None:
    """What is about to be done, and what a user should know of it."""
    training = loop.training
    for line in remarks(tuned.schedules, training) if tuned else ():
        say(line)
    for line in dataset_statistics.rendered(training):
        say(line)
    if not tuned:
        for line in dataset_statistics.repeated(training):
            say(line)
    which = f"tuned schedules {tuned.sha256[:12]}" if tuned else "the recipe's own schedules"
    begin = f"from step {done} on, " if done else ""
    say(f"training {loop.steps:,} steps at {which}; {begin}compiling ...")


def _refuse_not_positive(source: str, **numbers: int | None) -> None:
    faults = [
        Fault(f"--{name.replace('_', '-')}", number, "must be a whole number of 1 or above")
        for name, number in numbers.items()
        if number is not None and number < 1
    ]
    if faults:
        raise RecipeError(source, faults)
