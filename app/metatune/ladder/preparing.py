"""All that is to be trained of a ladder, and what is refused before anything is."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from metatune.artefact import Artefact
from metatune.fit.artefact_folder import complete
from metatune.fit.inputs import inputs
from metatune.fit.making import artefact_of
from metatune.fit.run_folder import RunFolder
from metatune.inner import InnerTraining, prepare
from metatune.inner.size import refuse_larger_than_memory
from metatune.ladder import memory
from metatune.ladder.candidates import Candidate, Schedules, by_update, candidates, leveled, sources
from metatune.ladder.measuring import Followed, following, operations
from metatune.ladder.record import LadderRecord
from metatune.ladder.rungs import refuse_no_ladder
from metatune.recipe.faults import RecipeError, unknown
from metatune.runs.faults import RUN
from metatune.runs.inputs import refuse_changed
from metatune.train.matching import refuse_misfit
from metatune.transfer.carried import Carried, carry
from metatune.transfer.rules import DEFAULT as DEFAULT_RULE
from metatune.transfer.rung import PROXY, Rung, recipe_at
from metatune.transfer.sides import of_artefact, of_training

Baselines = Literal["top", "all"]
"""Where baselines at constant rates are trained: at the largest rung, or at all."""

BASELINES: Final[tuple[Baselines, ...]] = ("top", "all")


@dataclass(frozen=True, eq=False)
class Step:
    """A rung as it is trained.

    Attributes:
        rung: its sizes.
        training: at these.
        schedules: by name, carried to it.
        candidates: that are trained.
    """

    rung: Rung
    training: InnerTraining
    schedules: Mapping[Schedules, Carried]
    candidates: Sequence[Candidate]

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
        seeds: of the trainings, none of which the run has used.
    """

    folder: RunFolder
    tuned: Artefact
    rule: str
    steps: Sequence[Step]
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

    def left(self, record: LadderRecord) -> float:
        """Work that isn't done yet."""
        return sum(
            self.work(step)
            for step in self.steps
            for candidate in step.candidates
            for seed in self.seeds
            if record.loss(step.rung, candidate, seed) is None
        )


def ladder(
    run: Path,
    proxy: Callable[[RunFolder], InnerTraining],
    rungs: Sequence[Rung],
    rule: str | None,
    seeds: int,
    baselines: Baselines = "top",
) -> Ladder:
    """Prepares all rungs, and refuses what can't be climbed before anything is trained.

    Args:
        run: a run folder that is finished.
        proxy: prepares the training of its recipe.
        rungs: the proxy among them.
        rule: a name of `transfer.rules.RULES`; the default one for None.
        seeds: trainings of each candidate at each rung.
        baselines: where those at constant rates are trained.

    Raises:
        RunFolderError: it is no finished run, or its data have changed.
        RecipeError: its recipe has no other sizes, or a rung doesn't fit into memory.
        ArtefactError: what was tuned can't be carried, or the rule says nothing of it.
    """
    folder, tuned = complete(run)
    own = proxy(folder)
    refuse_no_ladder(own.recipe)
    refuse_changed(folder.path, inputs(own), RUN)
    default = artefact_of(own, own.initial_eta(), tuned.result)
    own_schedules = sources(default, tuned)
    steps = []
    for rung in rungs:
        training = own
        if rung != PROXY:
            training = prepare(recipe_at(own.recipe, rung), rung.name)
        refuse_larger_than_memory(training)
        side = of_training(training, rung.name)
        schedules: dict[Schedules, Carried] = {
            name: carry(each, of_artefact(each), side, None if rung == PROXY else rule)
            for name, each in own_schedules.items()
        }
        if rung.steps > 1:
            read = schedules["tuned"]
            schedules["by update"] = read._replace(artefact=by_update(read.artefact, rung.steps))
        for carried in schedules.values():
            refuse_misfit(carried.artefact, training, rung.name)
        steps.append(Step(rung, training, schedules, ()))
    # Configs say nothing of how large they are; the proxy is the first in any case.
    steps = [steps[0], *sorted(steps[1:], key=lambda step: operations(step.training))]
    steps = [
        with_candidates(step, constants=baselines == "all" or step is steps[-1]) for step in steps
    ]
    memory.refuse_larger([(each.rung.name, each.followed(each.candidates[0])) for each in steps])
    first = own.recipe.outer.test.seeds
    seeds_of = tuple(range(first, first + seeds))
    return Ladder(folder, tuned, rule or DEFAULT_RULE, steps, seeds_of)


def baselines(said: str) -> Baselines:
    """Where baselines at constant rates are trained, of what a user says.

    Raises:
        RecipeError: that is none of the two.
    """
    for each in BASELINES:
        if each == said:
            return each
    fault = unknown("--baselines", said, "choice", said, BASELINES)
    raise RecipeError("transfer", [fault])


def with_candidates(step: Step, *, constants: bool) -> Step:
    """A rung with all that is trained of its schedules.

    Args:
        step: the rung.
        constants: whether baselines at constant rates are.
    """
    low = step.schedules["tuned"].artefact.mixture is not None
    found = candidates(step.schedules, low=low, constants=constants)
    return replace(step, candidates=found)
