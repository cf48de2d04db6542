"""A run: opens its folder, goes through the search, measures the result once, writes it down."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from metatune import artefact
from metatune.fit.artefact_folder import finished, write_artefact
from metatune.fit.inputs import inputs
from metatune.fit.making import artefact_of
from metatune.fit.measuring import measure
from metatune.fit.recorder import Recorder
from metatune.fit.run_folder import RunFolder, open_run, usable
from metatune.fit.searching import population
from metatune.fit.searching.checkpoints import SearchCheckpoints
from metatune.fit.searching.hypergradients import source
from metatune.fit.searching.loop import SearchLoop
from metatune.fit.searching.meta_update import meta_update
from metatune.fit.searching.phases import begin, inner_steps_left, steps_at_most
from metatune.fit.searching.points import taken
from metatune.fit.searching.search import Search
from metatune.fit.searching.still_moving import course
from metatune.fit.searching.validation import Validation
from metatune.fit.signal.signal import signal
from metatune.fit.telling import dataset_statistics, rounding
from metatune.fit.telling.announcement import announcement, undone
from metatune.fit.telling.expectation import Expectation, comparison, measured
from metatune.fit.telling.progress import SearchDisplay
from metatune.fit.telling.waits import HYPERGRADIENT, PREDICTING, TRAINING, durations_of
from metatune.fit.tracking import Tracker
from metatune.fit.trainers.evaluation import Score, held_out_loss
from metatune.fit.trainers.external import CommandFailed, external_trainer
from metatune.fit.trainers.failure import NotFinite
from metatune.inner import InnerTraining
from metatune.inner.size import refuse_larger_than_memory
from metatune.recipe.measures import sentence
from metatune.recipe.phases import Phase, resolved
from metatune.runs import files, processes, stops
from metatune.transfer.sized import sizes

Predict = Callable[[Path], Expectation | None]
"""Given the folder for what is kept on disk, predicts what a run takes, None if it can't."""


class SearchOutcome(NamedTuple):
    """What a run came to.

    Attributes:
        folder: the run folder.
        artefact: the tuned schedules; of an interrupted run the best so far.
        interrupted: whether Ctrl-C, SIGTERM or SIGHUP ended it; whoever called it ends, too.
        during: what it was doing then.
    """

    folder: RunFolder
    artefact: artefact.Artefact
    interrupted: bool
    during: str = ""


def fit(
    training: InnerTraining,
    out: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    predict: Predict | None = None,
    console: Console | None = None,
) -> SearchOutcome:
    """Tunes a training.

    Args:
        training: what to tune, as `metatune.inner` prepares it.
        out: the run folder.
        resume: go on with the run in `out`.
        overwrite: replace the run in `out`.
        predict: what it says is told, and compared with what was measured; None for no prediction.
        console: where progress is shown.

    Returns:
        The tuned schedules and where they are.

    Raises:
        RunFolderError: `out` can't be used as asked.
        NotFinite: a training diverged; the run folder holds the best so far and can be resumed.
        CheckpointError: no room for the states of the inner training.
        EstimatorError: the estimator can't be used for this training.
        CommandFailed: an external trainer did; as of `NotFinite`.
        DiskFull: what was written before is whole, and can be gone on with.
        ReplayError: the inner training did not repeat itself exactly.
    """
    recipe, folder = training.recipe, RunFolder(out)
    several = sizes(training)
    for each in several:
        refuse_larger_than_memory(each.training)
    phases, eta = resolved(recipe.outer), training.initial_eta()
    console, given = console or Console(), inputs(training)
    options: dict[str, Any] = {
        "resume": resume,
        "overwrite": overwrite,
        "say": partial(console.print, highlight=False, soft_wrap=True),
    }
    usable(out, **options)
    if resume and (done := finished(folder, recipe, given)):
        options["say"](f"{out}: this run is finished; nothing is left to do")
        return SearchOutcome(folder, done, interrupted=False)

    def like(number: int) -> Search:
        return begin(training, phases[number], eta)

    with (
        stops.listening(),
        processes.uncut() as hold,
        open_run(out, recipe, given, **options) as held,
        SearchCheckpoints(folder.checkpoints, held.checkpointed) as checkpoints,
    ):
        search = checkpoints.latest(like, options["say"]) or like(0)
        folder.forget_metrics_from(search.step)
        first = len(folder.read_metrics())
        with (
            folder.cleared_scratch(),
            SearchDisplay(
                console,
                steps_at_most(phases, search),
                ahead=inner_steps_left(recipe, phases, search),
                done=search.step,
                durations=durations_of(recipe),
                between=partial(processes.end_together, hold),
            ) as display,
            Tracker(folder, training, resumed_at=search.step) as tracker,
        ):
            external = external_trainer(training, folder, display.say)
            score: Score = external.score if external else partial(held_out_loss, training)
            programs = () if external else TRAINING
            scores: dict[str, Score] = {
                each.name: score if external else partial(held_out_loss, each.training)
                for each in several
            }
            if external:
                estimate, watched = external.estimate, None
            else:
                listen = partial(display.listener, "hypergradient", HYPERGRADIENT)
                estimate = source(training, folder.scratch, listen)
                watched = signal(training, estimate, partial(display.listener, programs=TRAINING))
            recorder = Recorder(training, folder, checkpoints, tracker, display)
            loop = SearchLoop(
                training,
                phases,
                estimate,
                watched,
                Validation(recipe.outer, scores, partial(display.listener, programs=programs)),
                meta_update(training),
                recorder,
                display,
            )
            complete = None
            try:
                expected = _announce(training, phases, search, display, folder.scratch, predict)
                for reached in loop.run(search):
                    search = reached
                    processes.end_together(hold)
                found = measure(training, search, display, score, programs)
                lines = recorder.lines
                told = population.summary(recipe.outer, taken(lines))
                told["search"] = course(recipe.outer, lines, loop.why_over(search))
                with display.waiting("writing the artefact"):
                    found = found._replace(result=found.result | told)
                    tuned = artefact_of(training, search.best_eta, *found)
                    complete = write_artefact(folder, tuned)
                    tracker.finish(complete, search.best_eta)
                if expected:
                    took = measured(taken(folder.read_metrics()[first:]))
                    display.say(comparison(expected, took))
                    both = {"expected": expected._asdict(), "measured": took}
                    files.replace(folder.expectation, json.dumps(both, indent=1) + "\n")
            except (KeyboardInterrupt, NotFinite, CommandFailed) as stop:
                # A result that is written stays, whatever comes after it.
                tuned = complete or recorder.write_best(search)
                if isinstance(stop, NotFinite) and complete is None:
                    recorder.stopped(search, stop)
                if isinstance(stop, KeyboardInterrupt):
                    return SearchOutcome(folder, tuned, interrupted=True, during=display.doing)
                raise
    return SearchOutcome(folder, complete, interrupted=False)


def _announce(
    training: InnerTraining,
    phases: Sequence[Phase],
    search: Search,
    display: SearchDisplay,
    scratch: Path,
    predict: Predict | None,
) -> Expectation | None:
    """Says what is about to be done, and what it is expected to take, which is returned."""
    for line in (
        *dataset_statistics.rendered(training),
        *dataset_statistics.copied(training),
        *dataset_statistics.repeated(training),
        *rounding.precision_warnings(training),
        *undone(training),
        announcement(training, phases, search),
        sentence(training.recipe),
    ):
        display.say(line)
    if predict is None:
        return None
    with display.waiting("predicting time and memory", PREDICTING):
        expected = predict(scratch)
    if expected:
        display.say(expected.sentence)
    return expected
