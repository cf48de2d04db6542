"""The outer loop: judge, differentiate, step; keep the best; measure the result once."""

import json
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console

from metatune import artefact, tunables
from metatune.data import stratified_batches
from metatune.fit import holdings, outer_optimizers, population, rounding
from metatune.fit.allocation import release_memory
from metatune.fit.announcement import announcement, ways
from metatune.fit.artefact_folder import finished, write_artefact
from metatune.fit.checkpoints import Checkpoints, Search
from metatune.fit.evaluation import Score, held_out_loss
from metatune.fit.expectation import Expectation, comparison, measured
from metatune.fit.external import CommandFailed, external_trainer
from metatune.fit.failure import NotFinite, refuse_not_finite
from metatune.fit.inputs import inputs
from metatune.fit.jumps import jumps
from metatune.fit.phases import End, begun, ended, entered, steps_at_most
from metatune.fit.points import judged, line_of, rate_factors, taken
from metatune.fit.progress import Display
from metatune.fit.result import artefact_of, measure, unfinished
from metatune.fit.run_folder import RunFolder, open_run, usable
from metatune.fit.sharing import record, sharing
from metatune.fit.still_moving import course, moved
from metatune.fit.tracking import Tracker
from metatune.fit.unrolls import Stretch, aged, stretch
from metatune.fit.waits import FORETELLING, HYPERGRADIENT, TRAINING, durations_of
from metatune.hypergrad import Hypergradient, hypergradient, hypergradients
from metatune.hypergrad.problem import Batches
from metatune.inner import InnerTraining, estimators
from metatune.inner.horizons import Stretched
from metatune.inner.metrics import held_out_batches
from metatune.inner.seeds import Purpose, Stream, data_seed, direction_key, model_key
from metatune.inner.size import refuse_larger_than_memory
from metatune.recipe import schema
from metatune.recipe.measures import sentence
from metatune.recipe.phases import Phase, resolved
from metatune.recipe.trajectory import points
from metatune.report.search import jump
from metatune.report.sharing import sentences
from metatune.runs import files, stops


class Outcome(NamedTuple):
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
    foretell: Callable[[Path], Expectation | None] | None = None,
    console: Console | None = None,
) -> Outcome:
    """Tunes a training.

    Args:
        training: what to tune, as `metatune.inner` prepares it.
        out: the run folder.
        resume: go on with the run in `out`.
        overwrite: replace the run in `out`.
        foretell: given the folder for what is kept on disk, predicts what the run takes, None if
            it can't; told, and compared with what was measured.
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
    refuse_larger_than_memory(training.initialise, training.model.family)
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
        first = len(folder.read_metrics())
        with (
            folder.cleared_scratch(),
            Display(
                console,
                steps_at_most(phases, search),
                done=search.step,
                durations=durations_of(recipe),
            ) as display,
            Tracker(folder, training, resumed_at=search.step) as tracker,
        ):
            loop = _Loop(training, folder, checkpoints, tracker, display, search)
            complete = None
            try:
                expected = loop.announce(foretell)
                search = loop.run(search)
                found = measure(training, search, display, loop.score, loop.programs)
                told = population.summary(recipe.outer, taken(loop.lines))
                told["search"] = course(recipe.outer, loop.lines, loop.why)
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
                tuned = complete or loop.write_best(loop.search)
                if isinstance(stop, KeyboardInterrupt):
                    return Outcome(folder, tuned, interrupted=True, during=display.doing)
                raise
    return Outcome(folder, complete, interrupted=False)


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
        self.programs = () if self.external else TRAINING
        self.search = search
        self.lines = folder.read_metrics()
        self.why = End.STEPS

    def announce(self, foretell: Callable[[Path], Expectation | None] | None) -> Expectation | None:
        """Says what is about to be done, and what it is expected to take, which is returned."""
        for line in (
            *holdings.rendered(self.training),
            *holdings.copied(self.training),
            *holdings.repeated(self.training),
            *rounding.outweighed(self.training),
            announcement(self.training, self.phases, self.search),
            sentence(self.training.recipe),
        ):
            self.display.say(line)
        if foretell is None:
            return None
        with self.display.waiting("foretelling time and memory", FORETELLING):
            expected = foretell(self.folder.scratch)
        if expected:
            self.display.say(expected.sentence)
        return expected

    def run(self, search: Search) -> Search:
        """All outer steps that are left, then the last point."""
        self.search = search
        while True:
            why = ended(self.phases[search.phase], self.outer.patience, search)
            if why is None:
                search = self.search = self.step(search)
            elif search.phase + 1 < len(self.phases):
                search = self.search = self.enter(search, why)
            else:
                self.why = why
                return self.last(search)

    def last(self, search: Search) -> Search:
        """The point that no outer step is taken from: judged, unless patience has run out."""
        began, held_out, of_average = time.monotonic(), math.nan, None
        if self.why is not End.PATIENCE:
            search, held_out, of_average = self.judgement(search)
        self.search = search
        seconds = time.monotonic() - began
        line = line_of(search, held_out, of_average, seconds=seconds)
        self.record(line, search.eta)
        if search.best_step == search.step:
            self.write_best(search)
        note = _remark(held_out) or ("" if held_out == held_out else f"not judged: {self.why}")
        self.display.point(line, rates=self._rates(search.eta), note=note)
        return search

    def record(self, line: dict[str, Any], eta: Any) -> None:
        """Keeps the line of a point."""
        self.folder.append_metrics(line)
        self.lines.append(line)
        self.tracker.point(line, eta)

    def enter(self, search: Search, why: End) -> Search:
        """Goes on with the next phase."""
        search = entered(self.training, self.phases, search)
        self.display.expect(steps_at_most(self.phases, search))
        number = search.phase
        self.display.say(
            f"phase {number} of {len(self.phases)} is over: {why}; "
            f"phase {number + 1}: {ways(self.phases[number])}, compiling ..."
        )
        return search

    def step(self, search: Search) -> Search:
        """One outer step: estimate, judge, move, write down."""
        began = time.monotonic()
        phase = self.phases[search.phase]
        part = stretch(self.training.recipe, phase, search)
        estimate = self.estimate(search, part)
        refuse_not_finite(estimate, search.step)
        held_out, of_average = math.nan, None
        if search.step == search.phase_start or search.step % self.outer.validation.every == 0:
            search, held_out, of_average = self.judgement(search)
        point = search
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
        losses = estimate.diagnostics.losses
        line = line_of(
            point,
            held_out,
            of_average,
            inner_steps=part.steps,
            objective=float(estimate.value),
            penalty=float(penalty),
            hypergradient_norm={k: float(optax.tree.norm(g)) for k, g in estimate.gradient.items()},
            **population.spread(estimate.diagnostics),
            inner_loss=float(losses[-1]) if len(losses) else None,
            moved=moved(self.training, point.eta, eta),
            seconds=time.monotonic() - began,
        )
        factors = rate_factors(self.training, point.eta)
        if found := jumps(self.lines, line, self.outer, phase, factors):
            line["jumps"] = found
        if self.external:
            line["lost_directions"] = estimate.diagnostics.lost_directions
        if self.sharing:
            search, changes = self.sharing.revised(search)
            line["sharing"] = record(search) | {"changes": changes}
            for sentence in sentences(changes):
                self.display.say(sentence)
        with stops.held():
            self.record(line, point.eta)
            if search.best_step == point.step:
                self.write_best(search)
            self.checkpoints.save(search)
        blocks = f" in {line['sharing']['blocks']}" if self.sharing else ""
        self.display.point(line, rates=self._rates(point.eta) + blocks, note=_remark(held_out))
        for key, each in found.items():
            self.display.say(jump(point.step, key, each))
        return search

    def estimate(self, search: Search, part: Stretch) -> Hypergradient:
        """The hypergradient of an outer step."""
        release_memory()
        spec = self.phases[search.phase].estimator
        if self.external and isinstance(spec, schema.ZerothOrder):
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

        held_out = held_out_batches(
            self.outer,
            self.training.corpus,
            "validation",
            seed=seed(search.step if fresh.data else 0, Stream.HELD_OUT),
            sequences=objective.sequences,
        )
        options: dict[str, Any] = {
            "steps": part.steps,
            "window": part.window,
            "points": points(objective.trajectory, part.steps),
            "estimator": estimators.build(spec),
            "checkpoints": estimators.checkpoints(spec, self.folder.scratch),
            "control": search.control or None,
            "listener": self.display.listener("hypergradient", HYPERGRADIENT),
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
            losses = [self._judge(search, index) for index in range(self.outer.validation.seeds)]
        except NotFinite:
            if search.step == 0:
                raise
            return math.inf
        return float(np.mean(losses))

    def _judge(self, search: Search, index: int) -> float:
        return self.score(
            search.eta,
            purpose=Purpose.VALIDATION,
            index=index,
            split="validation",
            sequences=self.outer.validation.sequences,
            listener=self.display.listener(f"validation {index + 1}", self.programs),
        )

    def write_best(self, search: Search) -> artefact.Artefact:
        """Writes the best so far as an unfinished artefact."""
        result = unfinished(self.training, search)
        return write_artefact(self.folder, artefact_of(self.training, search.best_eta, result))

    def _rates(self, eta: Any) -> str:
        factors = rate_factors(self.training, eta)
        return "" if factors is None else f"rates x{factors[0]:.2f} to x{factors[1]:.2f}"


def _remark(held_out: float) -> str:
    """What there is to say of a judgement that is no number to keep."""
    return "held-out inf: a training diverged" if math.isinf(held_out) else ""


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
