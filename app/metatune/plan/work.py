"""What an outer step of a recipe works on, and its programs, compiled."""

import time
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from metatune.data import Batch, heldout_batches, sampled_batches, stratified_batches
from metatune.hypergrad import as_argument, programs
from metatune.hypergrad.problem import State
from metatune.hypergrad.reverse_mode import Adjoint, ReverseMode
from metatune.hypergrad.segments import Segment, gather, inexact
from metatune.hypergrad.stores import tree_bytes
from metatune.inner import InnerTraining
from metatune.recipe.schema import Full, Online, Recipe, Truncated

SEED = (0,)  # the shapes of batches don't depend on it, nor what they cost


class Horizon(NamedTuple):
    """Inner steps of an outer step.

    Attributes:
        steps: that are run.
        window: that are differentiated, the last of them.
    """

    steps: int
    window: int


def horizon(recipe: Recipe) -> Horizon:
    """The inner steps of an outer step, of a recipe without phases."""
    steps = recipe.inner.steps
    match recipe.outer.unroll:
        case Full(horizons=given):  # one, if any: growing ones are planned one after the other
            steps = given[0] if given else steps
            return Horizon(steps, steps)
        case Truncated(window=window):
            return Horizon(steps, window)
        case Online(window=window):
            return Horizon(window, window)


class Compiled(NamedTuple):
    """The programs of an outer step.

    Attributes:
        forward: a segment forward.
        pullback: a segment backward.
        objective: the objective on a held-out batch, and its gradient.
        train: a segment of the judges' trainings.
        evaluate: a held-out batch of the judges.
        seconds: what compiling them took.
        saved_bytes: of what a segment saves for its pullback.
    """

    forward: Any
    pullback: Any
    objective: Any
    train: Any
    evaluate: Any
    seconds: float
    saved_bytes: int


@dataclass(frozen=True, eq=False)
class Work:
    """A recipe's training with an estimator, on arrays or on their shapes.

    Attributes:
        training: the training.
        estimator: how it is differentiated.
    """

    training: InnerTraining
    estimator: ReverseMode

    @property
    def recipe(self) -> Recipe:
        """The recipe."""
        return self.training.recipe

    def state(self) -> State:
        """A state, as shapes."""
        return jax.eval_shape(self.training.initialise, jax.random.key(0))

    def adjoint(self) -> Adjoint:
        """An adjoint, as shapes."""
        state = self.state()
        eta = jax.eval_shape(self.training.initial_eta)
        return Adjoint(state.params, inexact(state.opt_state)[0], eta)

    def segment(self, steps: int) -> Segment:
        """The first `steps` inner steps of a hypergradient, as a segment."""
        batches = stratified_batches(
            self.training.corpus,
            seed=SEED,
            batch_size=self.recipe.data.batch_size,
            shares=self._shares(),
        )
        return gather(batches, 0, self._at_most(steps), self.estimator.segment)

    def sampled(self, steps: int) -> Segment:
        """The first `steps` inner steps of a judge's training, as a segment."""
        batches = sampled_batches(
            self.training.corpus,
            seed=SEED,
            batch_size=self.recipe.data.batch_size,
            shares=self._shares(),
        )
        return gather(batches, 0, self._at_most(steps), self.estimator.segment)

    def held_out(self, sequences: int) -> list[Batch]:
        """Held-out batches with so many sequences in all."""
        micro_batch = min(self.recipe.outer.objective.micro_batch, sequences)
        return heldout_batches(
            self.training.corpus,
            "outer",
            seed=SEED,
            sequences=sequences,
            micro_batch=micro_batch,
        )

    def compiled(self) -> Compiled:
        """All programs of an outer step."""
        began = time.perf_counter()
        problem = as_argument(self.training.reweighted)
        sampled = as_argument(self.training.sampled)
        eta, state, outer = (
            jax.eval_shape(self.training.initial_eta),
            self.state(),
            self.recipe.outer,
        )
        segment = self.segment(1)
        saved = jax.eval_shape(
            partial(programs.forward, problem, self.estimator), eta, state, segment
        ).saved
        held_out, judged = (
            self.held_out(sequences)[0]
            for sequences in (outer.objective.sequences, outer.judge.sequences)
        )
        forward = programs.forward.lower(problem, self.estimator, eta, state, segment)
        pullback = programs.pullback.lower(
            problem, self.estimator, eta, segment, (state, saved), self.adjoint()
        )
        return Compiled(
            forward=forward.compile(),
            pullback=pullback.compile(),
            objective=programs.objective.lower(problem, state.params, held_out).compile(),
            train=programs.advance.lower(sampled, eta, state, self.sampled(1)).compile(),
            evaluate=jax.jit(_evaluate).lower(sampled, state.params, judged).compile(),
            seconds=time.perf_counter() - began,
            saved_bytes=tree_bytes(saved),
        )

    def _at_most(self, steps: int) -> int:
        """So many inner steps, or as many as there are in a segment."""
        return min(steps, self.recipe.inner.steps, self.estimator.segment)

    def _shares(self) -> np.ndarray:
        return self.training.trajectory(self.training.initial_eta()).mixture


def _evaluate(problem: Any, params: Any, batch: Batch) -> jax.Array:
    return problem.objective(params, batch)
