"""A contest: what was tuned, the default, and what a user would have done, at equal cost."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from metatune import artefact
from metatune.artefact import Artefact
from metatune.fit.artefact_folder import complete, write_artefact
from metatune.fit.inputs import inputs
from metatune.fit.making import artefact_of
from metatune.fit.run_folder import RunFolder
from metatune.inner import InnerTraining
from metatune.inner.size import refuse_larger_than_memory
from metatune.ladder.measuring import Followed, held_out_loss
from metatune.ladder.progress import Display
from metatune.recipe.faults import Fault, RecipeError
from metatune.report.tensorboard import EventWriter
from metatune.runs.inputs import refuse_changed
from metatune.runs.lock import locked
from metatune.train.matching import refuse_misfit
from metatune.verdict import contestants as table
from metatune.verdict.budget import Spent, spent
from metatune.verdict.contestants import Contestant, Setting
from metatune.verdict.document import Told, document
from metatune.verdict.points import Point
from metatune.verdict.searching import Chosen, Searching, trainings_of
from metatune.verdict.statistics import DEFAULT, TUNED, Outcome, contest, expected_seeds
from metatune.verdict.trainings import Trainings, setting_of, trainings
from metatune.verdict.trials import TEST, Trials
from metatune.verdict.words import decide

FRESH: Final = 1 << 20
"""Numbers of test trainings from which on a verdict has its own: no run's result has seen them."""

COARSEST: Final = 0.1
"""Of the gain that the run measured, the resolution by default."""

FINEST: Final = 0.002
"""Nats per token, or what else is measured: nothing finer matters, by default."""

PACE_STEPS: Final = 2
"""Trainings of one segment, the second of which is timed."""


@dataclass(frozen=True, eq=False)
class Contest:
    """All that is to be done.

    Attributes:
        folder: of the run.
        tuned: its artefact.
        trainings: makes the trainings.
        setting: what contestants are told.
        spent: what the search of the run took.
        budget: inner steps of each contestant's search.
        contestants: that apply.
        refused: the others, each with why.
        also: artefacts of further runs, by name.
        most: seeds at the last look.
        resolution: half-width of an interval that is fine enough.
    """

    folder: RunFolder
    tuned: Artefact
    trainings: Trainings
    setting: Setting
    spent: Spent
    budget: int
    contestants: Sequence[Contestant]
    refused: Mapping[str, str]
    also: Mapping[str, Artefact]
    most: int
    resolution: float

    @property
    def identity(self) -> dict[str, Any]:
        """What the numbers of the record depend on besides name, point and seed."""
        return {"recipe_sha256": self.tuned.provenance["recipe_sha256"]}

    @property
    def expected_seeds(self) -> int:
        """Seeds that the default's difference needs, by the pairs of the run's own result."""
        pairs = np.subtract(self.tuned.result["before"], self.tuned.result["after"])
        if len(pairs) < 2:
            return self.most
        return expected_seeds(float(pairs.std(ddof=1)), self.resolution, self.most)

    @property
    def work(self) -> int:
        """Trainings of all searches, and of as many seeds as are expected."""
        searches = trainings_of(self.contestants, self.budget, self.setting.steps)
        return searches + self.expected_seeds * (2 + len(self.contestants) + len(self.also))


def prepare(
    run: Path,
    training_of: Callable[[RunFolder], InnerTraining],
    *,
    only: Sequence[str] | None = None,
    budget: int | None = None,
    most: int,
    resolution: float | None = None,
    also: Sequence[Path] = (),
) -> Contest:
    """Reads all that takes part, and refuses what can't before anything is trained.

    Args:
        run: a run folder that is finished.
        training_of: prepares the training of its recipe.
        only: names of contestants; all of them for None.
        budget: inner steps of each search; what the run's own took for None.
        most: seeds at the last look.
        resolution: half-width of an interval that is fine enough; a tenth of the run's gain, and
            `FINEST` at least, for None.
        also: further runs or artefacts of the same parameters and domains.

    Raises:
        RunFolderError: it is no finished run, or its data have changed.
        RecipeError: an unknown contestant, or a run whose trainings are another program's.
        ArtefactError: what was tuned can't be followed by a training here.
    """
    wanted = table.chosen(only)
    folder, tuned = complete(run)
    training = training_of(folder)
    if (external := training.recipe.trainer) is not None:
        problem = "trains elsewhere: no contestant could train here what it trains"
        cure = "compare its trainings there"
        raise RecipeError(str(run), [Fault("trainer.command", external.command, problem, cure)])
    refuse_changed(folder.path, inputs(training))
    refuse_larger_than_memory(training.initialise, training.model.family)
    default = artefact_of(training, training.initial_eta(), tuned.result)
    others = {f"also:{path.name or path.resolve().name}": artefact.load(path) for path in also}
    for source, each in {str(run): tuned, "default": default, **others}.items():
        refuse_misfit(each, training, source)
    setting = setting_of(training, default)
    reasons = {each.name: each.refusal(setting) for each in wanted}
    took = spent(training.recipe, folder.read_metrics(), setting.coordinates)
    gain = abs(tuned.result["difference"] or 0.0)
    return Contest(
        folder,
        tuned,
        trainings(training, default),
        setting,
        took,
        budget or took.inner_steps,
        [each for each in wanted if reasons[each.name] is None],
        {name: why for name, why in reasons.items() if why is not None},
        others,
        most,
        max(FINEST, COARSEST * gain) if resolution is None else resolution,
    )


def hold(contest: Contest, display: Display) -> tuple[dict[str, Any], Trials]:
    """Searches, measures and writes the verdict; what is known of the record isn't trained again.

    Args:
        contest: what to do.
        display: is told of everything.

    Returns:
        The document of the artefact's `verdict.json`, and the record.
    """
    with locked(contest.folder.path):
        record = Trials(contest.folder.path, contest.identity)
        record.mend()
        searching = Searching(
            contest.trainings,
            contest.setting,
            contest.budget,
            record,
            lambda what, share: display.training(
                what, max(1, round(share * contest.setting.steps)), share
            ),
            display.done,
        )
        chosen: dict[str, Chosen] = {}
        for each in contest.contestants:
            chosen[each.name] = found = searching.search(each)
            words = found.point.words(
                _peak(contest), tuple(contest.trainings.training.corpus.names)
            )
            display.say(f"{each.name}: {found.held_out:.4f} in validation; {words}")
        outcome = _measured(contest, chosen, record, display)
        told = Told(contest, chosen, outcome, decide(outcome))
        written = document(told)
        write_artefact(contest.folder, replace(contest.tuned, verdict=written))
        with EventWriter(contest.folder.tensorboard) as writer:
            writer.text("verdict", written["sentence"], contest.tuned.result["outer_steps"])
    return written, record


def seconds(contest: Contest) -> float:
    """What a contest takes, about: by a segment of the default's training, once it is compiled."""
    followed = contest.trainings.of_artefact(contest.trainings.default)
    steps = contest.setting.steps
    short, took = min(followed.segment, steps), 0.0
    for _ in range(PACE_STEPS):
        began = time.monotonic()
        held_out_loss(followed, FRESH, steps=short)
        took = time.monotonic() - began
    return contest.work * took * steps / short


def _measured(
    contest_: Contest, chosen: Mapping[str, Chosen], record: Trials, display: Display
) -> Outcome:
    """All of them on the test split, on fresh paired seeds."""
    points: dict[str, Point | str] = {name: each.point for name, each in chosen.items()}
    points |= {name: _hash(each) for name, each in contest_.also.items()}
    points |= {TUNED: _hash(contest_.tuned), DEFAULT: "default"}
    made: dict[str, Followed] = {}

    def followed(name: str) -> Followed:
        if name in chosen:
            return contest_.trainings.followed(chosen[name].point)
        own = {TUNED: contest_.tuned, DEFAULT: contest_.trainings.default, **contest_.also}
        return contest_.trainings.of_artefact(own[name])

    def loss(name: str, seed: int) -> float:
        found = record.loss(TEST, name, points[name], seed)
        if found is not None:
            return found
        if name not in made:
            made[name] = followed(name)
        began = time.monotonic()
        listener = display.training(f"test seed {seed + 1}, {name}", contest_.setting.steps, 1.0)
        found = held_out_loss(made[name], FRESH + seed, listener=listener)
        record.add(TEST, name, points[name], seed, found, time.monotonic() - began)
        display.done()
        return found

    def tell(outcome: Outcome) -> None:
        gain = outcome.gain
        display.say(
            f"{outcome.seeds} seeds: tuned better than the default by {gain.mean:+.4f} "
            f"({gain.low:+.4f} to {gain.high:+.4f})"
        )

    rivals = [*chosen, *contest_.also]
    return contest(loss, rivals, contest_.resolution, contest_.most, tell)


def _hash(tuned: Artefact) -> str:
    """By what a record knows schedules that were tuned."""
    return f"{tuned.provenance['recipe_sha256']}, point {tuned.result['best_outer_step']}"


def _peak(contest: Contest) -> float:
    return contest.trainings.training.recipe.inner.optimizer.learning_rate
