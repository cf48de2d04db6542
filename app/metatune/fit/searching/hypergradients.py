"""Where the hypergradient of an outer step comes from: one training, a population, or a command."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from metatune.data import stratified_batches
from metatune.fit.searching import population
from metatune.fit.searching.search import Search
from metatune.fit.searching.truncation import Span
from metatune.fit.trainers.external import ExternalTrainer
from metatune.hypergrad import Hypergradient, Problem, hypergradient, hypergradients
from metatune.hypergrad.estimator import Listener
from metatune.hypergrad.problem import Batches
from metatune.inner import InnerTraining, estimators
from metatune.inner.horizons import Rescaled
from metatune.inner.metrics import held_out_batches
from metatune.inner.seeds import Purpose, Stream, data_seed, direction_key, model_key
from metatune.recipe import schema
from metatune.recipe.phases import Phase
from metatune.recipe.trajectory import points


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


class Asked(NamedTuple):
    """What is differentiated in an outer step.

    Attributes:
        problem: the inner training over a span, and its objective.
        batches: the number of a training, and that of a member, to its data.
        held_out: batches of the objective.
        options: further arguments of `hypergradient`.
    """

    problem: Problem
    batches: Callable[[int, int | None], Batches]
    held_out: Sequence[Any]
    options: dict[str, Any]


@dataclass(frozen=True, eq=False)
class OfOneTraining:
    """The hypergradient by the recipe's estimator, through one inner training.

    Attributes:
        training: the inner training.
        scratch: where checkpoints on disk lie.
        listen: makes what is told how far the next estimate is.
    """

    training: InnerTraining
    scratch: Path
    listen: Callable[[], Listener]

    def __call__(self, search: Search, phase: Phase, span: Span) -> Hypergradient:
        """As of `Source`; raises what `hypergradient` does."""
        training, seed = self.training, self.training.recipe.seed
        asked = ask(training, search, phase, span, self.scratch)
        first = span.training if training.recipe.outer.fresh.initialisation else 0
        key = model_key(seed, Purpose.HYPERGRADIENT, first)
        return hypergradient(
            asked.problem,
            search.eta,
            search.inner if span.start else training.initialise(key),
            asked.batches(span.training, None),
            asked.held_out,
            start=span.start,
            key=direction_key(seed, search.step),
            control=search.control or None,
            listener=self.listen(),
            **asked.options,
        )


@dataclass(frozen=True, eq=False)
class OfPopulation:
    """The mean of the hypergradients of several inner trainings.

    Attributes:
        training: each of them.
        spec: how many there are, and how they are run.
        scratch: where checkpoints on disk lie.
        listen: makes what is told how far the next estimate is.
    """

    training: InnerTraining
    spec: schema.Population
    scratch: Path
    listen: Callable[[], Listener]

    def __call__(self, search: Search, phase: Phase, span: Span) -> Hypergradient:
        """As of `Source`; raises what `hypergradients` does."""
        asked = ask(self.training, search, phase, span, self.scratch)
        return hypergradients(
            asked.problem,
            search.eta,
            population.members(self.training, phase, search, span, asked.batches),
            asked.held_out,
            vmap=self.spec.vmap,
            states=isinstance(phase.unroll, schema.Online),
            control=search.control or None,
            listener=self.listen(),
            **asked.options,
        )


@dataclass(frozen=True, eq=False)
class OfCommand:
    """Differences of the losses of trainings that a command does elsewhere.

    Attributes:
        trainer: the command.
    """

    trainer: ExternalTrainer

    def __call__(self, search: Search, phase: Phase, span: Span) -> Hypergradient:
        """As of `Source`; the command trains all inner steps. Raises what it does."""
        del span
        spec = phase.estimator
        if not isinstance(spec, schema.ZerothOrder):
            raise TypeError(f"{spec.kind} is no estimator of a search by a command")
        return self.trainer.estimate(search, spec)


def source(
    training: InnerTraining,
    external: ExternalTrainer | None,
    scratch: Path,
    listen: Callable[[], Listener],
) -> Source:
    """That of a recipe; `external` is None where training is done here."""
    if external:
        return OfCommand(external)
    if together := training.recipe.outer.population:
        return OfPopulation(training, together, scratch, listen)
    return OfOneTraining(training, scratch, listen)


def ask(training: InnerTraining, search: Search, phase: Phase, span: Span, scratch: Path) -> Asked:
    """What an outer step differentiates; arguments as of `Source`."""
    recipe, outer = training.recipe, training.recipe.outer
    seed = partial(data_seed, recipe.seed, Purpose.HYPERGRADIENT)
    if span.rescaled:
        shorter = Rescaled(training, span.steps)
        problem, shares = shorter.problem, shorter.shares(search.eta)
    else:
        problem, shares = training.reweighted, training.trajectory(search.eta).mixture

    def batches(number: int, member: int | None) -> Batches:
        return stratified_batches(
            training.corpus,
            seed=seed(number if outer.fresh.data else 0, Stream.TRAINING, member),
            batch_size=recipe.data.batch_size,
            shares=shares,
        )

    held_out = held_out_batches(
        outer,
        training.corpus,
        "validation",
        seed=seed(search.step if outer.fresh.data else 0, Stream.HELD_OUT),
        sequences=outer.objective.sequences,
    )
    options = {
        "steps": span.steps,
        "window": span.window,
        "points": points(outer.objective.trajectory, span.steps),
        "estimator": estimators.build(phase.estimator),
        "checkpoints": estimators.checkpoints(phase.estimator, scratch),
    }
    return Asked(problem, batches, held_out, options)
