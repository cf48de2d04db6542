"""The outer loop: judge, differentiate, step; keep the best; measure the result once."""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console

from metatune import artefact, tunables
from metatune.data import heldout_batches, stratified_batches
from metatune.fit import holdings, outer_optimizers, population, rounding
from metatune.fit.allocation import release_memory
from metatune.fit.artefact_folder import finished, write_artefact
from metatune.fit.checkpoints import Checkpoints, Search
from metatune.fit.evaluation import Score, held_out_loss
from metatune.fit.expectation import Expectation, comparison, measured
from metatune.fit.external import CommandFailed, external_trainer
from metatune.fit.failure import NotFinite, refuse_not_finite
from metatune.fit.inputs import inputs
from metatune.fit.phases import End, begun, ended, entered, steps_at_most
from metatune.fit.progress import Display
from metatune.fit.result import artefact_of, measure, unfinished
from metatune.fit.run_folder import RunFolder, open_run, usable
from metatune.fit.sharing import record, sharing
from metatune.fit.tracking import Tracker
from metatune.fit.unrolls import Stretch, aged, stretch
from metatune.hypergrad import Hypergradient, hypergradient, hypergradients
from metatune.hypergrad.problem import Batches
from metatune.inner import InnerTraining, estimators
from metatune.inner.horizons import Stretched
from metatune.inner.seeds import Purpose, Stream, data_seed, direction_key, model_key
from metatune.recipe import schema
from metatune.recipe.phases import Phase, resolved
from metatune.recipe.trajectory import points
from metatune.report.sharing import sentences
from metatune.runs import files, stops
from metatune.tunables import LearningRates


class Outcome(NamedTuple):
    """What a run came to.

    Attributes:
        folder: the run folder.
        artefact: the tuned schedules; of an interrupted run the best so far.
        interrupted: whether Ctrl-C, SIGTERM or SIGHUP ended it; whoever called it ends, too.
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
        CommandFailed: an external trainer did; as of `NotFinite`.
        DiskFull: what was written before is whole, and can be gone on with.
        ReplayError: the inner training did not repeat itself exactly.
    """
    recipe, folder = training.recipe, RunFolder(out)
    phases, eta = resolved(recipe.outer), training.initial_eta()
    console, given = console or Console(), inputs(training)
    options: dict[str, Any] = {
        "resume": resume,
        "overwrite": overwrite,
        "say": partial(console.print, highlight=False, soft_wrap=True),
    }
    usable(out, **options)
    if resume and (done := finished(folder, recipe, given)):
        return Outcome(folder, done, interrupted=False)

    def like(number: int) -> Search:
        return begun(training, phases[number], eta)

    with (
        stops.listening(),
        open_run(out, recipe, given, **options) as held,
        Checkpoints(folder.checkpoints, held.checkpointed) as checkpoints,
    ):
        search = checkpoints.latest(like, options["say"]) or like(0)
        folder.forget_metrics_from(search.step)
        first = search.step
        with (
            folder.cleared_scratch(),
            Display(console, steps_at_most(phases, search), done=search.step) as display,
            Tracker(folder, training, resumed_at=search.step) as tracker,
        ):
            loop = _Loop(training, folder, checkpoints, tracker, display, search)
            for line in (
                *holdings.copied(training),
                *holdings.repeated(training),
                *rounding.outweighed(training),
            ):
                display.say(line)
            display.say(announcement(training, phases, search))
            expected = foretell(folder.scratch) if foretell else None
            if expected:
                display.say(expected.sentence)
            try:
                search = loop.run(search)
                found = measure(training, search, display, loop.score)
                told = population.summary(recipe.outer, folder.read_metrics())
                found = found._replace(result=found.result | told)
            except (KeyboardInterrupt, NotFinite, CommandFailed) as stop:
                tuned = loop.write_best(loop.search)
                if isinstance(stop, KeyboardInterrupt):
                    return Outcome(folder, tuned, interrupted=True)
                raise
            tuned = write_artefact(folder, artefact_of(training, search.best_eta, *found))
            tracker.finish(tuned)
            if expected:
                took = measured(folder.read_metrics()[first:])
                display.say(comparison(expected, took))
                both = {"expected": expected._asdict(), "measured": took}
                files.replace(folder.expectation, json.dumps(both, indent=1) + "\n")
    return Outcome(folder, tuned, interrupted=False)


class _Loop:
    """The parts of a run that every outer step needs."""

    def __init__(
        self,
        training: InnerTraining,
        folder: RunFolder,
        checkpoints: Checkpoints,
        tracker: Tracker,
        display: Display,
        search: Search,
    ):
        self.training = training
        self.outer = training.recipe.outer
        self.phases = resolved(self.outer)
        self.folder = folder
        self.checkpoints = checkpoints
        self.tracker = tracker
        self.display = display
        deviation = self.outer.objective.deviation
        priced = partial(tunables.penalty, training.tunables, deviation=deviation)
        self.penalty = jax.jit(jax.value_and_grad(priced))
        self.sharing = sharing(training)
        self.updates = [
            _update(phase, self.outer, counted=self.sharing is not None) for phase in self.phases
        ]
        self.external = external_trainer(training, folder, display.say)
        self.score: Score = (
            self.external.score if self.external else partial(held_out_loss, training)
        )
        self.search = search

    def run(self, search: Search) -> Search:
        """All outer steps that are left, then a last judgement."""
        self.search = search
        while True:
            why = ended(self.phases[search.phase], self.outer.patience, search)
            if why is None:
                search = self.search = self.step(search)
            elif search.phase + 1 < len(self.phases):
                search = self.search = self.enter(search, why)
            else:
                break
        if why is not End.PATIENCE:
            search = self.search = self.judgement(search)[0]
        return search

    def enter(self, search: Search, why: End) -> Search:
        """Goes on with the next phase."""
        search = entered(self.training, self.phases, search)
        self.display.expect(steps_at_most(self.phases, search))
        number = search.phase
        self.display.say(
            f"phase {number} of {len(self.phases)} is over: {why}; "
            f"phase {number + 1}: {_ways(self.phases[number])}, compiling ..."
        )
        return search

    def step(self, search: Search) -> Search:
        """One outer step: estimate, judge, move, write down."""
        began, at = time.monotonic(), search.eta
        phase = self.phases[search.phase]
        part = stretch(self.training.recipe, phase, search)
        estimate = self.estimate(search, part)
        refuse_not_finite(estimate, search.step)
        held_out, of_average = math.nan, None
        if search.step == search.phase_start or search.step % self.outer.judge.every == 0:
            search, held_out, of_average = self.judgement(search)
        search = aged(self.training.recipe, phase, search, part.steps, estimate.state)
        if search.control:
            search = search._replace(control=estimate.diagnostics.control)
        penalty, of_penalty = self.penalty(search.eta)
        gradient, counts = estimate.gradient, {}
        if population.optimizers(self.outer):
            gradient = estimate.diagnostics.members
            of_penalty = jax.tree.map(lambda leaf: leaf[None], of_penalty)
        gradient = jax.tree.map(jnp.add, gradient, of_penalty)
        if self.sharing:
            search = self.sharing.observed(search, gradient)
            gradient = self.sharing.summed(search, gradient)
            counts = {"counts": self.sharing.counts(search)}
        updates, opt_state = self.updates[phase.number](gradient, search.opt_state, **counts)
        eta: Any = optax.apply_updates(search.eta, updates)
        search = search._replace(step=search.step + 1, eta=eta, opt_state=opt_state)
        if self.outer.ema is not None:
            average = outer_optimizers.averaged(search.average, eta, self.outer.ema, search.step)
            search = search._replace(average=average)
        norms = {key: float(optax.tree.norm(g)) for key, g in estimate.gradient.items()}
        losses = estimate.diagnostics.losses
        line = {
            "step": search.step - 1,
            "phase": phase.number,
            "inner_steps": part.steps,
            "objective": float(estimate.value),
            "penalty": float(penalty),
            "held_out": held_out if math.isfinite(held_out) else None,
            "best_held_out": search.best_held_out,
            "hypergradient_norm": norms,
            **population.spread(estimate.diagnostics),
            "inner_loss": float(losses[-1]) if len(losses) else None,
            "seconds": time.monotonic() - began,
        }
        if of_average is not None:
            line["held_out_average"] = of_average if math.isfinite(of_average) else None
        if self.external:
            line["lost_directions"] = estimate.diagnostics.lost_directions
        if self.sharing:
            search, changes = self.sharing.revised(search)
            line["sharing"] = record(search) | {"changes": changes}
            for sentence in sentences(changes):
                self.display.say(sentence)
        with stops.held():
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
            signals={key: of["median"] for key, of in line.get("signal", {}).items()},
            rates=self._rates(at) + (f" in {line['sharing']['blocks']}" if self.sharing else ""),
            seconds=line["seconds"],
        )
        return search

    def estimate(self, search: Search, part: Stretch) -> Hypergradient:
        """The hypergradient of an outer step."""
        release_memory()
        spec = self.phases[search.phase].estimator
        if self.external and isinstance(spec, schema.External):
            return self.external.estimate(search, spec)
        recipe, fresh, objective = self.training.recipe, self.outer.fresh, self.outer.objective
        seed = partial(data_seed, recipe.seed, Purpose.HYPERGRADIENT)
        if part.stretched:
            shorter = Stretched(self.training, part.steps)
            problem, shares = shorter.problem, shorter.shares(search.eta)
        else:
            problem = self.training.reweighted
            shares = self.training.trajectory(search.eta).mixture

        def batches(number: int, member: int | None = None) -> Batches:
            return stratified_batches(
                self.training.corpus,
                seed=seed(number if fresh.data else 0, Stream.TRAINING, member),
                batch_size=recipe.data.batch_size,
                shares=shares,
            )

        held_out = heldout_batches(
            self.training.corpus,
            "outer",
            seed=seed(search.step if fresh.data else 0, Stream.HELD_OUT),
            sequences=objective.sequences,
            micro_batch=min(objective.micro_batch, objective.sequences),
        )
        options: dict[str, Any] = {
            "steps": part.steps,
            "window": part.window,
            "points": points(objective.trajectory, part.steps),
            "estimator": estimators.build(spec),
            "checkpoints": estimators.checkpoints(spec, self.folder.scratch),
            "control": search.control or None,
            "listener": self.display.listener("hypergradient"),
        }
        phase, together = self.phases[search.phase], self.outer.population
        if together:
            members = population.members(self.training, phase, search, part, batches)
            online = isinstance(phase.unroll, schema.Online)
            options |= {"vmap": together.vmap, "states": online}
            return hypergradients(problem, search.eta, members, held_out, **options)
        first = part.training if fresh.initialisation else 0
        key = model_key(recipe.seed, Purpose.HYPERGRADIENT, first)
        return hypergradient(
            problem,
            search.eta,
            search.inner if part.start else self.training.initialise(key),
            batches(part.training),
            held_out,
            start=part.start,
            key=direction_key(recipe.seed, search.step),
            **options,
        )

    def judgement(self, search: Search) -> tuple[Search, float, float | None]:
        """Judges the meta-parameters and, where there is one, their average; keeps the best.

        Returns:
            The search, and the held-out losses of both.
        """
        held_out = self.judge(search)
        search = judged(search, held_out)
        if self.outer.ema is None:
            return search, held_out, None
        if not search.step:
            return search, held_out, held_out  # an average of one
        of_average = self.judge(search._replace(eta=search.average))
        return judged(search, of_average, averaged=True), held_out, of_average

    def judge(self, search: Search) -> float:
        """Mean held-out loss of whole trainings at the current meta-parameters.

        Infinite if one diverges: such meta-parameters can't be the best, but the search may leave
        them again. At the recipe's own it is a fault.
        """
        release_memory()
        try:
            losses = [self._judge(search, index) for index in range(self.outer.judge.seeds)]
        except NotFinite:
            if search.step == 0:
                raise
            return math.inf
        return float(np.mean(losses))

    def _judge(self, search: Search, index: int) -> float:
        return self.score(
            search.eta,
            purpose=Purpose.JUDGE,
            index=index,
            split="outer",
            sequences=self.outer.judge.sequences,
            listener=self.display.listener(f"judge {index + 1}"),
        )

    def write_best(self, search: Search) -> artefact.Artefact:
        """Writes the best so far as an unfinished artefact."""
        result = unfinished(self.training, search)
        return write_artefact(self.folder, artefact_of(self.training, search.best_eta, result))

    def _rates(self, eta: Mapping[str, Any]) -> str:
        rates = {tunable.key: tunable for tunable in self.training.tunables}.get("learning_rates")
        if not isinstance(rates, LearningRates):
            return ""
        multipliers = rates.multipliers(np.asarray(eta[rates.key]))
        return f"rates x{multipliers.min():.2f} to x{multipliers.max():.2f}"


def announcement(training: InnerTraining, phases: Sequence[Phase], search: Search) -> str:
    """What is about to be done, in a line."""
    sizes = {key: "x".join(map(str, leaf.shape)) for key, leaf in search.eta.items()}
    tuned = ", ".join(f"{key} ({size})" for key, size in sizes.items())
    phase = phases[search.phase]
    part = stretch(training.recipe, phase, search)
    steps = f"{part.steps} inner steps{' at first' if part.stretched else ''}"
    if training.recipe.outer.population:
        ages = population.ages(training.recipe, phase)
        steps += f" of {len(ages)} trainings"
        if any(ages) and search.step == search.phase_start:
            steps += f", trained to the ages of {', '.join(map(str, ages))} inner steps first"
    begin = f"from outer step {search.step + 1}, " if search.step else ""
    which = f"phase {phase.number + 1} of {len(phases)}, {_ways(phase)}; "
    return (
        f"tuning {tuned} over {steps_at_most(phases, search)} outer steps of {steps}; "
        f"{which if len(phases) > 1 else ''}{begin}compiling ..."
    )


def _ways(phase: Phase) -> str:
    """The choices of a phase in a few words."""
    return (
        f"{phase.estimator.kind}, {phase.unroll.kind}, {phase.optimizer.kind}, "
        f"{phase.steps} outer steps at most"
    )


def _update(phase: Phase, outer: schema.Outer, *, counted: bool) -> Callable[..., tuple[Any, Any]]:
    """A hypergradient and a state to the updates of η and the next state; compiled."""
    optimizer = outer_optimizers.build(
        phase.optimizer,
        outer.clip_norm,
        outer.clip,
        population.optimizers(outer),
        counted=counted,
    )
    return jax.jit(optimizer.update)


def judged(search: Search, held_out: float, averaged: bool = False) -> Search:
    """Keeps the current meta-parameters, or their average, as the best if they are."""
    if held_out < search.best_held_out:
        return search._replace(
            best_eta=search.average if averaged else search.eta,
            best_step=search.step,
            best_held_out=held_out,
            best_averaged=averaged,
        )
    return search
