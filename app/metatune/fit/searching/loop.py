"""The outer loop: validate, differentiate, step; from phase to phase, and the last point."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from metatune.fit.process.allocation import release_memory
from metatune.fit.recorder import Recorder, outer_step
from metatune.fit.searching.hypergradients import Source
from metatune.fit.searching.meta_update import MetaUpdate
from metatune.fit.searching.phases import End, end_of, enter, inner_steps_left, steps_at_most
from metatune.fit.searching.points import SearchPoint
from metatune.fit.searching.search import Search
from metatune.fit.searching.truncation import advance, next_span
from metatune.fit.searching.trust import judge
from metatune.fit.searching.validation import Validated, Validation
from metatune.fit.signal.signal import Signal, ToFollow
from metatune.fit.telling.announcement import ways
from metatune.fit.telling.progress import SearchDisplay
from metatune.fit.trainers.failure import refuse_not_finite
from metatune.inner import InnerTraining
from metatune.recipe.phases import Phase


@dataclass(frozen=True, eq=False)
class SearchLoop:
    """A search, as what it is made of.

    Attributes:
        training: what is tuned.
        phases: of the search.
        hypergradient: where hypergradients come from.
        signal: what is followed in the place of those that are noise; None for all as they are.
        validation: what measures a point.
        update: how a hypergradient moves η.
        recorder: keeps and tells of every point.
        display: is told of phases.
    """

    training: InnerTraining
    phases: Sequence[Phase]
    hypergradient: Source
    signal: Signal | None
    validation: Validation
    update: MetaUpdate
    recorder: Recorder
    display: SearchDisplay

    def run(self, search: Search) -> Iterator[Search]:
        """All outer steps that are left, then the last point.

        Args:
            search: where it stands.

        Yields:
            The search wherever it has got to, finished in the end.
        """
        while (why := self.end_of(search)) is None or search.phase + 1 < len(self.phases):
            search = self.step(search) if why is None else self.enter_next(search, why)
            yield search
        began, validated = time.monotonic(), Validated()
        if why is not End.PATIENCE:
            search, validated = self.validation(search)
        yield search
        self.recorder.last(search, _point(search, validated, began), why)

    def end_of(self, search: Search) -> End | None:
        """Why the phase that a search is in is over; None while it goes on."""
        return end_of(self.phases[search.phase], self.training.recipe.outer.patience, search)

    def why_over(self, search: Search) -> End:
        """Why a search that is over is so: it can be told from where it stands."""
        if (why := self.end_of(search)) is None or search.phase + 1 < len(self.phases):
            raise ValueError(f"the search goes on at point {search.step}")
        return why

    def step(self, search: Search) -> Search:
        """One outer step: estimate the hypergradient, validate, move η, write down.

        Where there is a point to go back to, validation comes first: what it takes back needs no
        hypergradient, and might have none.
        """
        began, validated, taken_back = time.monotonic(), Validated(), None
        recipe, phase = self.training.recipe, self.phases[search.phase]
        due, at = self.validation.is_due(search), search
        first = due and bool(search.trust) and search.best_step >= 0
        if first:
            at, validated = self.validation(search)
            search, taken_back = judge(at, validated.each)
        span = next_span(recipe, phase, search)
        release_memory()
        estimate = self.hypergradient(search, phase, span)
        follow = ToFollow(search, estimate)
        if self.signal is not None:
            follow = self.signal(search, phase, span, estimate)
        search, estimate = follow.search, follow.estimate
        refuse_not_finite(
            estimate, search.step, span.training, span.start, optimizer=recipe.inner.optimizer
        )
        if due and not first:
            search, validated = self.validation(search)
            at = search
            if search.trust:
                search, taken_back = judge(search, validated.each)
        after, done = self.update(search, estimate, follow.kept)
        after = advance(recipe, phase, after, span.steps, estimate.state)
        if after.control:
            after = after._replace(control=estimate.diagnostics.control)
        taken = outer_step(
            self.training, search, after, estimate, done, span.steps, follow, taken_back
        )
        point = _point(search, validated, began)._replace(taken=taken)
        self.recorder.step(at, after, phase, point)
        return after

    def enter_next(self, search: Search, why: End) -> Search:
        """Goes on with the next phase."""
        search = enter(self.training, self.phases, search)
        ahead = inner_steps_left(self.training.recipe, self.phases, search)
        self.display.expect(steps_at_most(self.phases, search), ahead)
        number = search.phase
        self.display.say(
            f"phase {number} of {len(self.phases)} is over: {why}; "
            f"phase {number + 1}: {ways(self.phases[number])}, compiling ..."
        )
        return search


def _point(search: Search, validated: Validated, began: float) -> SearchPoint:
    seconds = time.monotonic() - began
    return SearchPoint(search.step, search.phase, validated, search.best_held_out, seconds)
