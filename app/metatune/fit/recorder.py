"""What is kept and told of each point of a search: metrics, TensorBoard, the screen, the best."""

from collections.abc import Mapping, Sequence
from typing import Any

import optax

from metatune import artefact
from metatune.fit.artefact_folder import write_artefact
from metatune.fit.making import artefact_of
from metatune.fit.measuring import unfinished
from metatune.fit.run_folder import RunFolder
from metatune.fit.searching import population
from metatune.fit.searching.checkpoints import SearchCheckpoints
from metatune.fit.searching.growth import growth_line, window_norms
from metatune.fit.searching.jumps import jumps
from metatune.fit.searching.meta_update import Done
from metatune.fit.searching.phases import End
from metatune.fit.searching.points import OuterStep, SearchPoint, rate_factors
from metatune.fit.searching.robust import objectives
from metatune.fit.searching.search import Search
from metatune.fit.searching.sharing import record
from metatune.fit.searching.still_moving import moved
from metatune.fit.searching.trust import TakenBack
from metatune.fit.searching.validation import Validated
from metatune.fit.signal.signal import ToFollow
from metatune.fit.telling.progress import SearchDisplay
from metatune.fit.tracking import Tracker
from metatune.fit.trainers.failure import NotFinite
from metatune.hypergrad import Hypergradient
from metatune.inner import InnerTraining
from metatune.recipe.phases import Phase
from metatune.report.search import diverged, ended, jump, taken_back
from metatune.report.sharing import sentences
from metatune.report.signal import chosen, dominated, first_dominated
from metatune.runs import stops


class Recorder:
    """The record of one run."""

    def __init__(
        self,
        training: InnerTraining,
        folder: RunFolder,
        checkpoints: SearchCheckpoints,
        tracker: Tracker,
        display: SearchDisplay,
    ):
        """Reads the metrics so far.

        Args:
            training: what is tuned.
            folder: the run folder.
            checkpoints: of the run.
            tracker: writes its event files.
            display: is told of every point.
        """
        self._training, self._folder, self._checkpoints = training, folder, checkpoints
        self._tracker, self._display = tracker, display
        self._lines = folder.read_metrics()

    @property
    def lines(self) -> Sequence[Mapping[str, Any]]:
        """All of the metrics."""
        return self._lines

    def step(self, before: Search, after: Search, phase: Phase, point: SearchPoint) -> None:
        """Keeps and tells of a point that an outer step was taken from, and where it led.

        Args:
            before: the search at the point, validated.
            after: the search at the next one.
            phase: that the step belongs to.
            point: what is recorded, but for jumps, which are looked for here.
        """
        factors = rate_factors(self._training, before.eta)
        point = self._told(point)
        found = jumps(self._lines, point.line(), self._training.recipe.outer, phase, factors)
        if found and point.taken:
            point = point._replace(taken=point.taken._replace(jumps=found))
        line = point.line()
        if new := first_dominated(self._lines, line):
            most = factors and factors[1]
            born, why = line["blended"]["origin"], line["blended"].get("unmeasured", "")
            self._display.say(dominated(point.step, new, born, most, why))
        if "measured" in line.get("chosen", {}):
            self._display.say(chosen(point.step, line["chosen"]))
        if "taken_back" in line:
            self._display.say(taken_back(point.step, line["taken_back"]))
        shared = line.get("sharing")
        for sentence in sentences(shared["changes"]) if shared else ():
            self._display.say(sentence)
        with stops.held():
            self._append(line, before.eta)
            if after.best_step == before.step:
                self.write_best(after)
            self._checkpoints.save(after)
        blocks = f" in {shared['blocks']}" if shared else ""
        self._display.point(line, rates=_words(factors) + blocks, note=point.validated.remark)
        for key, each in found.items():
            self._display.say(jump(point.step, key, each))
        if sides := line.get("diverged_sides"):
            self._display.say(diverged(point.step, sides, line["lost_directions"]))

    def last(self, search: Search, point: SearchPoint, why: End) -> None:
        """Keeps and tells of the point that the search ends at.

        Args:
            search: at the point.
            point: what is recorded.
            why: the search ends.
        """
        line = self._told(point).line()
        self._append(line, search.eta)
        if search.best_step == search.step:
            self.write_best(search)
        held_out = point.validated.held_out
        note = point.validated.remark or ("" if held_out == held_out else f"not judged: {why}")
        rates = _words(rate_factors(self._training, search.eta))
        self._display.point(line, rates=rates, note=note)

    def stopped(self, search: Search, error: NotFinite) -> None:
        """Keeps where a training diverged that the search can't go on without.

        It goes on from this point, whose line is then written anew.

        Args:
            search: at the point.
            error: what was found.
        """
        phase, best = search.phase, search.best_held_out
        where = SearchPoint(search.step, phase, Validated(diverged=error), best, 0.0, ended=True)
        line = self._told(where).line()
        self._folder.append_metrics(line)
        self._display.say(ended(line))

    def _told(self, point: SearchPoint) -> SearchPoint:
        """A point with where a training diverged, if one did."""
        if (error := point.validated.diverged) is None:
            return point
        windows = {each.key: each.windows for each in self._training.tunables}
        return point._replace(diverged=error.line(self._training.recipe.inner.steps, windows))

    def write_best(self, search: Search) -> artefact.Artefact:
        """Writes the best so far as an unfinished artefact."""
        result = unfinished(self._training, search)
        return write_artefact(self._folder, artefact_of(self._training, search.best_eta, result))

    def _append(self, line: dict[str, Any], eta: Mapping[str, Any]) -> None:
        self._folder.append_metrics(line)
        self._lines.append(line)
        self._tracker.point(line, eta)


def _words(factors: tuple[float, float] | None) -> str:
    return "" if factors is None else f"rates x{factors[0]:.2f} to x{factors[1]:.2f}"


def outer_step(
    training: InnerTraining,
    before: Search,
    after: Search,
    estimate: Hypergradient,
    done: Done,
    inner_steps: int,
    follow: ToFollow,
    taken_back: TakenBack | None = None,
) -> OuterStep:
    """What is recorded of an outer step, but for jumps.

    Args:
        training: what is tuned.
        before: the search at its point.
        after: the search at the next one.
        estimate: of the hypergradient.
        done: what the meta-update did.
        inner_steps: that were differentiated.
        follow: what became of hypergradients that growth dominated.
        taken_back: the steps before the point, where validation contradicts them.
    """
    seen = estimate.diagnostics
    return OuterStep(
        inner_steps=inner_steps,
        objective=float(estimate.value),
        objective_sizes=objectives(training.recipe.outer.robust, estimate),
        penalty=done.penalty,
        hypergradient_norm={k: float(optax.tree.norm(g)) for k, g in estimate.gradient.items()},
        inner_loss=float(seen.losses[-1]) if len(seen.losses) else None,
        moved=moved(training, before.eta, done.eta),
        window_norm=window_norms(training.tunables, estimate.gradient) or None,
        **population.spread(seen),
        gated=done.gated,
        lost_directions=None if seen.lost_directions is None else int(seen.lost_directions),
        diverged_sides=None if seen.diverged_sides is None else int(seen.diverged_sides),
        sharing=record(after) | {"changes": done.changes} if after.shared else None,
        growth=growth_line(seen.growth),
        blended=follow.told,
        chosen=follow.chosen,
        taken_back=taken_back and taken_back.line(),
    )
