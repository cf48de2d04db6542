"""A contest: what was tuned, the default, and what a user would have done, at equal cost."""

import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
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
from metatune.inner.seeds import Purpose
from metatune.inner.size import refuse_larger_than_memory
from metatune.ladder import measuring
from metatune.ladder.measuring import Followed
from metatune.ladder.progress import Display
from metatune.recipe.faults import Fault, RecipeError
from metatune.report.artefact_readme import readme
from metatune.report.tensorboard import EventWriter
from metatune.runs import stops
from metatune.runs.faults import RUN
from metatune.runs.inputs import refuse_changed
from metatune.runs.lock import locked
from metatune.runs.streams import Streams
from metatune.train.matching import refuse_misfit
from metatune.verdict import contestants as table
from metatune.verdict.aftermath import FRESH, SEEDS, hash_of, with_aftermath
from metatune.verdict.budget import Spent, course, spent
from metatune.verdict.contestants import Contestant, ContestSetting
from metatune.verdict.document import About, Told, document
from metatune.verdict.measuring import Measuring, streams_of
from metatune.verdict.parts import variants
from metatune.verdict.searching import Chosen, Searching, trainings_of
from metatune.verdict.simple import TRIED
from metatune.verdict.statistics import DEFAULT, TUNED, Outcome, contest, expected_seeds, looks
from metatune.verdict.trainings import ContestTrainings, setting_of, trainings
from metatune.verdict.trials import Trials
from metatune.verdict.words import decide

COARSEST: Final = 0.1
"""Of the gain that the run measured, the resolution by default."""

FINEST: Final = 0.002
"""Nats per token, or what else is measured: nothing finer matters, by default."""


@dataclass(frozen=True, eq=False)
class Contest:
    """All that is to be done.

    Attributes:
        folder: of the run.
        tuned: its artefact.
        trainings: makes the trainings.
        setting: what contestants are told.
        spent: what the search of the run took.
        course: of that search, as of `Chosen`.
        budget: inner steps of each contestant's search.
        contestants: that apply.
        refused: the others, each with why.
        also: artefacts of further runs, by name.
        most: seeds at the last look.
        resolution: half-width of an interval that is fine enough.
        parts: whether what of the tuned schedules the gain is of is looked at, too.
    """

    folder: RunFolder
    tuned: Artefact
    trainings: ContestTrainings
    setting: ContestSetting
    spent: Spent
    course: tuple[tuple[int, float], ...]
    budget: int
    contestants: Sequence[Contestant]
    refused: Mapping[str, str]
    also: Mapping[str, Artefact]
    most: int
    resolution: float
    parts: bool

    @property
    def peak(self) -> float | None:
        """The recipe's peak learning rate; None where groups have their own."""
        peaks = set(self.trainings.training.peaks().values())
        return peaks.pop() if len(peaks) == 1 else None

    @property
    def domains(self) -> tuple[str, ...]:
        """That are trained on."""
        return tuple(self.trainings.training.corpus.names)

    @property
    def about(self) -> About:
        """What a document says of it."""
        return About(
            self.tuned,
            self.peak,
            self.domains,
            self.spent,
            self.course,
            self.budget,
            self.resolution,
            self.refused,
        )

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
        rivals = len(self.contestants) + len(self.also)
        first = min(looks(self.most)[0], self.expected_seeds)
        # Most rivals are told at the first look; the best one stays.
        measured = first * (2 + rivals) + (self.expected_seeds - first) * min(3, 2 + rivals)
        of_parts = 0
        if self.parts:
            made = variants(self.trainings.training, self.trainings.default, self.tuned)
            of_parts = SEEDS * (2 + len(made) + TRIED) + self.expected_seeds
        return searches + measured + of_parts


def prepare(
    run: Path,
    training_of: Callable[[RunFolder], InnerTraining],
    *,
    only: Sequence[str] | None = None,
    budget: int | None = None,
    most: int,
    resolution: float | None = None,
    also: Sequence[Path] = (),
    parts: bool = True,
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
        parts: whether to look at what of the tuned schedules the gain is of, too.

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
    refuse_changed(folder.path, inputs(training), RUN)
    refuse_larger_than_memory(training)
    default = artefact_of(training, training.initial_eta(), tuned.result)
    others = {f"also {path}": artefact.load(path) for path in also}
    for source, each in {str(run): tuned, "default": default, **others}.items():
        refuse_misfit(each, training, source)
    setting = setting_of(training, default)
    reasons = {each.name: each.refusal(setting) for each in wanted}
    metrics = folder.read_metrics()
    took = spent(training.recipe, metrics, setting.coordinates)
    gain = abs(tuned.result["difference"] or 0.0)
    return Contest(
        folder,
        tuned,
        trainings(training, default),
        setting,
        took,
        course(training.recipe, metrics, setting.coordinates),
        budget or took.inner_steps,
        [each for each in wanted if reasons[each.name] is None],
        {name: why for name, why in reasons.items() if why is not None},
        others,
        most,
        max(FINEST, COARSEST * gain) if resolution is None else resolution,
        parts,
    )


def hold(contest: Contest, display: Display) -> tuple[dict[str, Any], Trials]:
    """Searches, measures and writes the verdict; what is known of the record isn't trained again.

    Args:
        contest: what to do.
        display: is told of everything.

    Returns:
        The document of the artefact's `verdict.json`, and the record.
    """
    with locked(contest.folder.path, RUN):
        record = Trials(contest.folder.path, contest.identity)
        record.mend()
        streams = Streams(streams_of(contest.trainings.training))
        measure = Measuring(record, display, contest.setting.steps, streams)
        searching = Searching(contest.trainings, contest.setting, contest.budget, measure)

        def search(contestant: Contestant) -> Chosen:
            found = searching.search(contestant)
            words = found.point.words(contest.peak, contest.domains)
            display.say(f"{contestant.name}: {found.held_out:.4f} in validation; {words}")
            return found

        # All begin at once: a search waits for its own trainings, and others train meanwhile.
        searches = [partial(search, each) for each in contest.contestants]
        found = streams.each(searches, waiting=True)
        names = [each.name for each in contest.contestants]
        chosen = dict(zip(names, found, strict=True))
        outcome = _measured(contest, chosen, measure)
        told = Told(contest.about, chosen, outcome, decide(outcome))
        if outcome.gain.better and contest.parts:
            told = with_aftermath(told, contest.trainings, contest.tuned, measure)
        written = document(told)
        _write_simple(contest.folder, told.simple)
        write_artefact(contest.folder, replace(contest.tuned, verdict=written))
        with EventWriter(contest.folder.tensorboard) as writer:
            writer.text("verdict", written["sentence"], contest.tuned.result["outer_steps"])
    return written, record


def _write_simple(folder: RunFolder, simple: Artefact | None) -> None:
    """The simple schedules beside the artefact; those of an earlier verdict go."""
    if simple is None:
        if folder.simple.exists():
            shutil.rmtree(folder.simple)
        return
    with stops.held():
        artefact.write(folder.simple, simple, readme(simple))


def seconds(contest: Contest) -> float:
    """What a contest takes, about, by trainings of the default, as many at once as it has."""
    streams = Streams(streams_of(contest.trainings.training))
    followed = contest.trainings.of_artefact(contest.trainings.default)
    measuring.seconds(followed, FRESH)  # compiles
    several = [partial(measuring.seconds, followed, FRESH + i) for i in range(streams.count)]
    return contest.work * float(np.mean(streams.each(several))) / streams.count


def _measured(found: Contest, chosen: Mapping[str, Chosen], measure: Measuring) -> Outcome:
    """All of them on the test split, on fresh paired seeds."""
    schedules = {TUNED: found.tuned, DEFAULT: found.trainings.default, **found.also}
    made: dict[str, Followed] = {}

    lock = threading.Lock()

    def followed(name: str) -> Followed:
        with lock:
            if name not in made:
                made[name] = (
                    found.trainings.followed(chosen[name].point)
                    if name in chosen
                    else found.trainings.of_artefact(schedules[name])
                )
            return made[name]

    def loss(name: str, seed: int) -> float:
        point = chosen[name].point if name in chosen else hash_of(schedules[name])
        return measure(
            "test",
            name,
            point,
            FRESH + seed,
            lambda: followed(name),
            purpose=Purpose.TEST,
            what=f"test seed {seed + 1}, {name}",
        )

    def tell(outcome: Outcome) -> None:
        gain = outcome.gain
        measure.display.say(
            f"{outcome.seeds} seeds: tuned is better than the default by {gain.mean:+.4f} "
            f"({gain.low:+.4f} to {gain.high:+.4f})"
        )

    def ahead(asked: Sequence[tuple[str, int]]) -> None:
        measure.streams.each([partial(loss, *each) for each in asked])

    return contest(loss, [*chosen, *found.also], found.resolution, found.most, tell, ahead)
