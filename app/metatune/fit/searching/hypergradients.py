"""Where the hypergradient of an outer step comes from: one training, several, or a command."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from metatune.fit.searching import population
from metatune.fit.searching.asking import asked
from metatune.fit.searching.robust import OfSizes
from metatune.fit.searching.search import Search
from metatune.fit.searching.truncation import Span
from metatune.fit.signal.choice import in_force
from metatune.hypergrad import Hypergradient, Member, hypergradient, hypergradients
from metatune.hypergrad.estimator import Listener
from metatune.inner import InnerTraining
from metatune.inner.seeds import Purpose, direction_key, model_key
from metatune.recipe import schema
from metatune.recipe.phases import Phase
from metatune.transfer.sized import sizes


class OuterStepTrainings(Protocol):
    """The trainings of an outer step."""

    def __call__(
        self, search: Search, phase: Phase, span: Span, *, beside: int = 0
    ) -> tuple[Sequence[Member], Mapping[str, Any]]:
        """Those that are differentiated, and the arguments of `hypergradient` that all have.

        Args:
            search: where it stands.
            phase: the one that it is in.
            span: the inner steps that are differentiated.
            beside: where a single one is, so many others of its kind follow it; several are what
                they are.
        """
        ...


class Source(Protocol):
    """Where hypergradients come from."""

    def __call__(self, search: Search, phase: Phase, span: Span) -> Hypergradient:
        """The hypergradient at the meta-parameters of a search.

        Args:
            search: where it stands.
            phase: the one that it is in.
            span: the inner steps that are differentiated.
        """
        ...


@dataclass(frozen=True, eq=False)
class OfOneTraining:
    """The recipe's estimator, through one inner training; raises what `hypergradient` does.

    Where a way was chosen, by that, and the mean over as many trainings.

    Attributes:
        training: the inner training.
        scratch: where checkpoints on disk lie.
        listen: makes what is told how far the next estimate is.
    """

    training: InnerTraining
    scratch: Path
    listen: Callable[[], Listener]

    def __call__(self, search: Search, phase: Phase, span: Span) -> Hypergradient:
        """As of `Source`."""
        phase, count = in_force(search, phase, span)
        if count > 1:
            return self.several(search, phase, span, range(count))
        (one,), options = self.trainings(search, phase, span)
        return hypergradient(
            state=one.begin(),
            batches=one.batches,
            start=one.start,
            key=one.key,
            listener=self.listen(),
            **options,
        )

    def several(self, search: Search, phase: Phase, span: Span, numbers: range) -> Hypergradient:
        """The mean over trainings that begin with the outer step, one after the other.

        Args:
            search: where it stands.
            phase: whose estimator it is.
            span: the inner steps that are differentiated.
            numbers: which, two or more: that of the outer step is 0, others of its kind follow.
        """
        members, options = self.trainings(search, phase, span, beside=numbers.stop - 1)
        return hypergradients(
            members=[members[number] for number in numbers],
            vmap=False,
            states=False,
            listener=self.listen(),
            **options,
        )

    def trainings(
        self, search: Search, phase: Phase, span: Span, *, beside: int = 0
    ) -> tuple[Sequence[Member], Mapping[str, Any]]:
        """As of `OuterStepTrainings`: others have the seeds of a population's members."""
        recipe = self.training.recipe
        batches, options = asked(self.training, search, phase, span, self.scratch)
        first = span.training if recipe.outer.fresh.initialisation else 0

        def of(member: int | None) -> Member:
            key = model_key(recipe.seed, Purpose.HYPERGRADIENT, first, member)
            return Member(
                begin=lambda: search.inner if span.start else self.training.initialise(key),
                batches=batches(span.training, member),
                start=span.start,
                key=direction_key(recipe.seed, search.step, member),
            )

        return [of(member) for member in (None, *range(beside))], options


@dataclass(frozen=True, eq=False)
class OfPopulation:
    """The mean over several inner trainings; raises what `hypergradients` does.

    Attributes:
        training: each of them.
        vmap: whether all are differentiated in one program.
        scratch: where checkpoints on disk lie.
        listen: makes what is told how far the next estimate is.
    """

    training: InnerTraining
    vmap: bool
    scratch: Path
    listen: Callable[[], Listener]

    def __call__(self, search: Search, phase: Phase, span: Span) -> Hypergradient:
        """As of `Source`."""
        members, options = self.trainings(search, phase, span)
        return hypergradients(
            members=members,
            vmap=self.vmap,
            states=isinstance(phase.unroll, schema.OnlineSpec),
            listener=self.listen(),
            **options,
        )

    def trainings(
        self, search: Search, phase: Phase, span: Span, *, beside: int = 0
    ) -> tuple[Sequence[Member], Mapping[str, Any]]:
        """As of `OuterStepTrainings`."""
        del beside
        batches, options = asked(self.training, search, phase, span, self.scratch)
        return population.members(self.training, phase, search, span, batches), options


def source(
    training: InnerTraining,
    scratch: Path,
    listen: Callable[[], Listener],
) -> OfOneTraining | OfPopulation | OfSizes:
    """That of a recipe whose training is done here."""
    outer = training.recipe.outer
    if outer.robust:
        return OfSizes(training, sizes(training), outer.robust.seeds, scratch, listen)
    if together := outer.population:
        return OfPopulation(training, together.vmap, scratch, listen)
    return OfOneTraining(training, scratch, listen)
