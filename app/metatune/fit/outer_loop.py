"""The outer loop: judge, differentiate, step; keep the best; measure the result once."""

import json
import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from rich.console import Console

from metatune import artefact
from metatune.data import heldout_batches, stratified_batches
from metatune.fit import holdings, outer_optimizers, rounding, run_folder
from metatune.fit.checkpoints import Checkpoints, Search
from metatune.fit.evaluation import held_out_loss
from metatune.fit.expectation import Expectation, comparison, measured
from metatune.fit.failure import NotFinite, refuse_not_finite
from metatune.fit.progress import Display
from metatune.fit.result import artefact_of, measure, unfinished
from metatune.fit.run_folder import RunFolder, open_run
from metatune.fit.seeds import Purpose, Stream, data_seed, direction_key, model_key
from metatune.fit.tracking import Tracker
from metatune.fit.unrolls import Stretch, aged, stretch
from metatune.hypergrad import Hypergradient, hypergradient
from metatune.inner import InnerTraining, estimators
from metatune.recipe import schema
from metatune.report.artefact_readme import readme


class Outcome(NamedTuple):
    """What a run came to.

    Attributes:
        folder: the run folder.
        artefact: the tuned schedules; of an interrupted run the best so far.
        interrupted: whether Ctrl-C ended it.
    """

    folder: RunFolder
    artefact: artefact.Artefact
    interrupted: bool


def fit(
    training: InnerTraining,
    out: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    foretell: Callable[[Path], Expectation | None] | None = None,
    console: Console | None = None,
) -> Outcome:
    """Tunes a training.

    Args:
        training: what to tune, as `metatune.inner` prepares it.
        out: the run folder.
        resume: go on with the run in `out`.
        overwrite: delete the run in `out`.
        foretell: given the folder for what is kept on disk, predicts what the run takes, None if
            it can't; told, and compared at the end with what was measured.
        console: where progress is shown.

    Returns:
        The tuned schedules and where they are.

    Raises:
        RunFolderError: `out` can't be used as asked.
        NotFinite: a training diverged; the run folder holds the best so far and can be resumed.
        CheckpointError: no room for the states of the inner training.
        EstimatorError: the estimator can't be used for this training.
        ReplayError: the inner training did not repeat itself exactly.
    """
    recipe = training.recipe
    folder = open_run(out, recipe, resume=resume, overwrite=overwrite)
    optimizer = outer_optimizers.build(recipe.outer)
    eta = training.initial_eta()
    start = Search(step=0, eta=eta, opt_state=optimizer.init(eta), best_eta=eta)
    if isinstance(recipe.outer.unroll, schema.Online):  # a state of that shape is carried on
        start = start._replace(inner=training.initialise(jax.random.key(0)))
    with Checkpoints(folder.checkpoints) as checkpoints:
        search = checkpoints.latest(like=start) or start
        if finished := _finished(folder):
            return Outcome(folder, finished, interrupted=False)
        folder.forget_metrics_from(search.step)
        first = search.step
        with (
            folder.cleared_scratch(),
            Display(console or Console(), recipe.outer.steps, done=search.step) as display,
            Tracker(folder, training, resumed_at=search.step) as tracker,
        ):
            loop = _Loop(training, folder, checkpoints, tracker, display, optimizer, search)
            for line in (
                *holdings.copied(training),
                *holdings.repeated(training),
                *rounding.outweighed(training),
            ):
                display.say(line)
            display.say(announcement(training, search))
            expected = foretell(folder.scratch) if foretell else None
            if expected:
                display.say(expected.sentence)
            try:
                search = loop.run(search)
                result = measure(training, search, display)
            except (KeyboardInterrupt, NotFinite) as stop:
                tuned = loop.write_best(loop.search)
                if isinstance(stop, NotFinite):
                    raise
                return Outcome(folder, tuned, interrupted=True)
            tuned = artefact_of(training, search.best_eta, result)
            artefact.write(folder.artefact, tuned, readme(tuned))
            tracker.finish(tuned)
            if expected:
                found = measured(folder.read_metrics()[first:])
                display.say(comparison(expected, found))
                both = {"expected": expected._asdict(), "measured": found}
                run_folder.replace(folder.expectation, json.dumps(both, indent=1) + "\n")
    return Outcome(folder, tuned, interrupted=False)


def _finished(folder: RunFolder) -> artefact.Artefact | None:
    """The artefact of a run that is complete."""
    if not (folder.artefact / "tuned.json").exists():
        return None
    found = artefact.load(folder.artefact)
    return found if found.result["status"] == "complete" else None


class _Loop:
    """The parts of a run that every outer step needs."""

    def __init__(
        self,
        training: InnerTraining,
        folder: RunFolder,
        checkpoints: Checkpoints,
        tracker: Tracker,
        display: Display,
        optimizer: optax.GradientTransformation,
        search: Search,
    ):
        self.training = training
        self.outer = training.recipe.outer
        self.folder = folder
        self.checkpoints = checkpoints
        self.tracker = tracker
        self.display = display
        self.optimizer = optimizer
        self.estimator = estimators.build(self.outer.estimator)
        self.kept = estimators.checkpoints(self.outer.estimator, folder.scratch)
        self.search = search

    def run(self, search: Search) -> Search:
        """All outer steps that are left, then a last judgement."""
        self.search = search
        patience = self.outer.patience or math.inf
        while search.step < self.outer.steps and search.step - search.best_step <= patience:
            search = self.search = self.step(search)
        if search.step == self.outer.steps:
            held_out = self.judge(search)
            search = self.search = judged(search, held_out)
        return search

    def step(self, search: Search) -> Search:
        """One outer step: estimate, judge, move, write down."""
        began, at = time.monotonic(), search.eta
        part = stretch(self.training.recipe, search)
        estimate = self.estimate(search, part)
        refuse_not_finite(estimate, search.step)
        held_out = math.nan
        if search.step % self.outer.judge.every == 0:
            held_out = self.judge(search)
            search = judged(search, held_out)
        search = aged(self.training.recipe, search, part.steps, estimate.state)
        updates, opt_state = self._update(estimate.gradient, search.opt_state)
        eta: Any = optax.apply_updates(search.eta, updates)
        search = search._replace(step=search.step + 1, eta=eta, opt_state=opt_state)
        norms = {key: float(optax.tree.norm(g)) for key, g in estimate.gradient.items()}
        line = {
            "step": search.step - 1,
            "objective": float(estimate.value),
            "held_out": held_out if math.isfinite(held_out) else None,
            "best_held_out": search.best_held_out,
            "hypergradient_norm": norms,
            "inner_loss": float(estimate.diagnostics.losses[-1]),
            "seconds": time.monotonic() - began,
        }
        self.folder.append_metrics(line)
        self.tracker.outer_step(line, at)
        if search.best_step == search.step - 1:
            self.write_best(search)
        self.checkpoints.save(search)
        self.display.outer_step(
            search.step - 1,
            objective=line["objective"],
            held_out=held_out,
            best=search.best_held_out,
            norms=norms,
            rates=self._rates(at),
            seconds=line["seconds"],
        )
        return search

    def estimate(self, search: Search, part: Stretch) -> Hypergradient:
        """The hypergradient of an outer step."""
        recipe, fresh, objective = self.training.recipe, self.outer.fresh, self.outer.objective
        seed = partial(data_seed, recipe.seed, Purpose.HYPERGRADIENT)
        key = model_key(
            recipe.seed, Purpose.HYPERGRADIENT, part.training if fresh.initialisation else 0
        )
        return hypergradient(
            self.training.reweighted,
            search.eta,
            search.inner if part.start else self.training.initialise(key),
            stratified_batches(
                self.training.corpus,
                seed=seed(part.training if fresh.data else 0, Stream.TRAINING),
                batch_size=recipe.data.batch_size,
                shares=self.training.trajectory(search.eta).mixture,
            ),
            heldout_batches(
                self.training.corpus,
                "outer",
                seed=seed(search.step if fresh.data else 0, Stream.HELD_OUT),
                sequences=objective.sequences,
                micro_batch=min(objective.micro_batch, objective.sequences),
            ),
            steps=part.steps,
            start=part.start,
            window=part.window,
            estimator=self.estimator,
            checkpoints=self.kept,
            key=direction_key(recipe.seed, search.step),
            listener=self.display.listener("hypergradient"),
        )

    def judge(self, search: Search) -> float:
        """Mean held-out loss of whole trainings at the current meta-parameters.

        Infinite if one diverges: such meta-parameters can't be the best, but the search may leave
        them again. At the recipe's own it is a fault.
        """
        try:
            losses = [self._judge(search, index) for index in range(self.outer.judge.seeds)]
        except NotFinite:
            if search.step == 0:
                raise
            return math.inf
        return float(np.mean(losses))

    def _judge(self, search: Search, index: int) -> float:
        return held_out_loss(
            self.training,
            search.eta,
            purpose=Purpose.JUDGE,
            index=index,
            split="outer",
            sequences=self.outer.judge.sequences,
            listener=self.display.listener(f"judge {index + 1}"),
        )

    def write_best(self, search: Search) -> artefact.Artefact:
        """Writes the best so far as an unfinished artefact."""
        tuned = artefact_of(self.training, search.best_eta, unfinished(self.training, search))
        artefact.write(self.folder.artefact, tuned, readme(tuned))
        return tuned

    def _update(self, gradient: Any, opt_state: Any) -> tuple[Any, Any]:
        return jax.jit(self.optimizer.update)(gradient, opt_state)

    def _rates(self, eta: Mapping[str, Any]) -> str:
        if "learning_rates" not in eta:
            return ""
        multipliers = np.exp(np.asarray(eta["learning_rates"]))
        return f"rates x{multipliers.min():.2f} to x{multipliers.max():.2f}"


def announcement(training: InnerTraining, search: Search) -> str:
    """What is about to be done, in a line."""
    recipe = training.recipe
    sizes = {key: "x".join(map(str, leaf.shape)) for key, leaf in search.eta.items()}
    tuned = ", ".join(f"{key} ({size})" for key, size in sizes.items())
    begin = f"from outer step {search.step + 1}, " if search.step else ""
    return (
        f"tuning {tuned} over {recipe.outer.steps} outer steps of "
        f"{stretch(recipe, search).steps} inner steps; {begin}compiling ..."
    )


def judged(search: Search, held_out: float) -> Search:
    """Keeps the current meta-parameters as the best if they are."""
    if held_out < search.best_held_out:
        return search._replace(best_eta=search.eta, best_step=search.step, best_held_out=held_out)
    return search
