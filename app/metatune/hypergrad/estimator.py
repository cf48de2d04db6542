"""What every estimator offers, and what it is given."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from metatune.hypergrad import programs
from metatune.hypergrad.checkpoints import Checkpoints
from metatune.hypergrad.problem import (
    Batches,
    Hypergradient,
    Problem,
    Progress,
    PyTree,
    State,
)

Listener = Callable[[Progress], None]


class EstimatorError(ValueError):
    """An estimator can't be used for this hypergradient; says what can."""


@dataclass(frozen=True)
class Job:
    """A hypergradient to estimate: the arguments of `hypergradient`, made ready.

    Attributes:
        problem: the training and its objective, as an argument of compiled programs.
        eta: meta-parameters η.
        state: the state before inner step `start`, to be left untouched.
        batches: the batch of an inner step.
        outer_batches: held-out batches, one or more.
        start: the first inner step.
        first: the first inner step that is differentiated.
        stop: one past the last inner step.
        checkpoints: which states between segments are kept, and where.
        key: where randomness comes from.
        control: a guess of the hypergradient, for a control variate; None for none.
        carry: where an estimate that was stopped goes on.
        listener: is told after each segment where the computation stands.
    """

    problem: Problem
    eta: PyTree
    state: State
    batches: Batches
    outer_batches: Sequence[PyTree]
    start: int
    first: int
    stop: int
    checkpoints: Checkpoints
    key: jax.Array | None
    control: PyTree
    carry: Any
    listener: Listener | None

    @property
    def steps(self) -> int:
        """Inner steps."""
        return self.stop - self.start

    def objective(self, params: PyTree) -> tuple[jax.Array, PyTree]:
        """The objective F, and its gradient in the parameters, batch by batch."""
        return self._mean(lambda batch: programs.objective(self.problem, params, batch))

    def value(self, params: PyTree) -> jax.Array:
        """The objective F alone, which need not be differentiable."""
        return self._mean(lambda batch: programs.value(self.problem, params, batch))

    def value_each(self, params: PyTree) -> jax.Array:
        """The objective F of several trainings, [n]."""
        return self._mean(lambda batch: programs.value_each(self.problem, params, batch))

    def tell(
        self,
        phase: str,
        step: int,
        losses: jax.Array,
        *,
        steps: int | None = None,
        wait: PyTree = None,
        carry: PyTree = None,
    ) -> None:
        """Tells the listener that `step` inner steps are done, of `steps`, else of all of them."""
        tell(self.listener, phase, step, steps or self.steps, losses, wait, carry)

    def _mean(self, measure: Callable[[PyTree], PyTree]) -> PyTree:
        total = measure(self.outer_batches[0])
        for batch in self.outer_batches[1:]:
            total = jax.tree.map(jnp.add, total, measure(batch))
        return jax.tree.map(lambda leaf: leaf / len(self.outer_batches), total)


class Estimator(Protocol):
    """A way to obtain the hypergradient: a frozen dataclass."""

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
    phase: str,
    step: int,
    steps: int,
    losses: jax.Array,
    wait: PyTree = None,
    carry: PyTree = None,
) -> None:
    """Tells a listener where a computation stands, once `wait` is there."""
    if listener is not None:
        jax.block_until_ready(wait)
        loss = float(losses[-1])
        listener(Progress(phase, step, steps, loss, carry))  # pyright: ignore[reportArgumentType]
