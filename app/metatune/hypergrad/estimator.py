"""What every estimator offers, and what it is given."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar, Literal, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from metatune.hypergrad import programs
from metatune.hypergrad.problem import (
    Batches,
    Hypergradient,
    Problem,
    Progress,
    State,
    as_argument,
)
from metatune.hypergrad.reverse.checkpoints import Checkpoints
from metatune.hypergrad.segments import bounds
from metatune.hypergrad.shapes import Batch, Eta, Floats, Params, Scalar, Tree

Listener = Callable[[Progress], None]


class EstimatorError(ValueError):
    """An estimator can't be used for this hypergradient; says what can."""


@dataclass(frozen=True)
class Job:
    """A hypergradient to estimate: the arguments of `hypergradient`, made ready.

    Attributes:
        problem: the training and its objective, as an argument of compiled programs.
        eta: meta-parameters η.
        state: the state before inner step `start`, to be left untouched; where a training begins
            with `problem.start`, what that is given.
        batches: the batch of an inner step.
        outer_batches: held-out batches, one or more.
        start: the first inner step.
        first: the first inner step that is differentiated.
        stop: one past the last inner step.
        points: inner steps after which the objective is taken, ascending, and its weight there.
        checkpoints: which states between segments are kept, and where.
        key: where randomness comes from.
        control: a guess of the hypergradient, for a control variate; None for none.
        carry: where an estimate that was stopped goes on.
        listener: is told after each segment where the computation stands.
    """

    problem: Problem
    eta: Eta
    state: State
    batches: Batches
    outer_batches: Sequence[Batch]
    start: int
    first: int
    stop: int
    points: Mapping[int, float]
    checkpoints: Checkpoints
    key: Key[Array, ""] | None
    control: Eta | None
    carry: PyTree
    listener: Listener | None

    @property
    def steps(self) -> int:
        """Inner steps."""
        return self.stop - self.start

    @property
    def start_counts(self) -> bool:
        """Whether η moves the state that the differentiated steps begin with."""
        return self.problem.start is not None and self.first == 0

    def begin(self) -> State:
        """The state that the first inner step takes; its memory may be that of `state`."""
        if self.problem.start is None or self.start > 0:
            return self.state
        return programs.begin(self.problem, self.eta, self.state)

    def objective(self, state: State, weight: float) -> tuple[Scalar, Params, Floats | None]:
        """What the objective F adds at a state, and its gradient in it.

        Args:
            state: the training's, at a point or where an adjoint begins anew.
            weight: of F there.

        Returns:
            What it adds, its gradient in the parameters, and that in the floating-point leaves of
            the optimizer state; None if that is zero.
        """
        params = evaluated(self.problem, state)
        if self.problem.whole is None or len(self.outer_batches) == 1:
            found = self._mean(lambda batch: programs.objective(self.problem, params, batch))
            value, bar = _times(weight, found)
        else:
            mean = self._mean(lambda batch: programs.value(self.problem, params, batch))
            value, of_mean = _times(weight, programs.whole(self.problem, mean))
            bar = self._mean(
                lambda batch: programs.objective_along(self.problem, params, batch, of_mean)
            )
        if self.problem.evaluated is None:
            return value, bar, None
        return value, *programs.evaluated_bar(self.problem, state, bar)

    def value(self, state: State, step: int) -> Scalar:
        """What the objective F at a point adds, which need not be differentiable."""
        params = evaluated(self.problem, state)
        value = self._mean(lambda batch: programs.value(self.problem, params, batch))
        if self.problem.whole is not None:
            value = programs.whole(self.problem, value)[0]
        return _times(self.points[step], value)

    def value_each(self, states: State, step: int) -> Float[Array, "n"]:
        """What the objective F of several trainings adds at a point."""
        params = states.params
        if self.problem.evaluated is not None:
            params = jax.vmap(programs.evaluated, in_axes=(None, 0))(self.problem, states)
        values = self._mean(lambda batch: programs.value_each(self.problem, params, batch))
        if self.problem.whole is not None:
            values = programs.whole_each(self.problem, values)
        return _times(self.points[step], values)

    def bounds(self, start: int, stop: int, length: int) -> list[tuple[int, int]]:
        """Cuts inner steps into segments of `length` at most, none with a point within."""
        inside = [point for point in self.points if start < point < stop]
        edges = [start, *inside, stop] if start < stop else []
        return [cut for edge in pairwise(edges) for cut in bounds(*edge, length)]

    def tell(
        self,
        phase: Literal["forward", "backward"],
        step: int,
        losses: Float[Array, "steps"],
        *,
        steps: int | None = None,
        wait: PyTree = None,
        carry: PyTree = None,
    ) -> None:
        """Tells the listener that `step` inner steps are done, of `steps`, else of all of them."""
        tell(self.listener, phase, step, steps or self.steps, losses, wait, carry)

    def _mean(self, measure: Callable[[Batch], Tree]) -> Tree:
        """The mean over the held-out batches, one by one."""
        total = measure(self.outer_batches[0])
        for batch in self.outer_batches[1:]:
            total = jax.tree.map(jnp.add, total, measure(batch))
        return jax.tree.map(lambda leaf: leaf / len(self.outer_batches), total)


def _times(weight: float, tree: Tree) -> Tree:
    return jax.tree.map(lambda leaf: leaf * weight, tree)


def measured(
    problem: Problem,
    params: Params,
    outer_batches: Sequence[Batch],
    dtype: type[np.floating] | None = None,
) -> float:
    """The objective F of parameters.

    Args:
        problem: the training and its objective.
        params: what is evaluated of a state.
        outer_batches: held-out batches of one shape.
        dtype: that their mean is taken in; None for the objective's own.
    """
    problem = as_argument(problem)
    values = [programs.value(problem, params, batch) for batch in outer_batches]
    mean = jax.tree.map(lambda *leaves: np.mean(np.stack(leaves), axis=0, dtype=dtype), *values)
    return float(mean if problem.whole is None else programs.whole(problem, mean)[0])


def evaluated(problem: Problem, state: State) -> Params:
    """The parameters of a state that the objective is taken of, and that are to be kept.

    Args:
        problem: the training.
        state: of it.
    """
    if problem.evaluated is None:
        return state.params
    return programs.evaluated(as_argument(problem), state)


@runtime_checkable
class Estimator(Protocol):
    """A way to obtain the hypergradient: a frozen dataclass.

    Attributes:
        backward: whether it goes back through the training, so that there are states to keep.
        draws: whether it draws random directions: then it needs a key, and has standard errors.
    """

    backward: ClassVar[bool]
    draws: ClassVar[bool]

    @property
    def segment(self) -> int:
        """Inner steps per segment."""
        ...

    def estimate(self, job: Job) -> Hypergradient:
        """The hypergradient.

        Raises:
            EstimatorError: this estimator is not for such a job; says which is.
        """
        ...


Way = TypeVar("Way", bound=Estimator)


def shortened(estimator: Way, steps: int) -> Way:
    """An estimator whose segments are no longer than the steps that it differentiates.

    A segment that is filled up takes the memory of the steps that it skips, too.

    Args:
        estimator: as it was asked for.
        steps: through so many it differentiates.
    """
    if estimator.segment <= steps:
        return estimator
    return replace(estimator, segment=steps)  # pyright: ignore[reportArgumentType]


def refuse_not_positive(**numbers: float | None) -> None:
    """Refuses numbers that are zero or below.

    Args:
        numbers: by name; None for one that isn't given.

    Raises:
        ValueError: one is.
    """
    for name, number in numbers.items():
        if number is not None and not number > 0:
            raise ValueError(f"{name} = {number}: must be above 0")


def tell(
    listener: Listener | None,
    phase: Literal["forward", "backward"],
    step: int,
    steps: int,
    losses: Float[Array, "segment"],
    wait: PyTree = None,
    carry: PyTree = None,
) -> None:
    """Tells a listener where a computation stands, once `wait` is there."""
    if listener is not None:
        jax.block_until_ready(wait)
        loss = float(losses[-1])
        listener(Progress(phase, step, steps, loss, carry))
