"""What a certificate is about: a training, how it is differentiated, and what seeds change.

Any problem of `metatune.hypergrad` will do; `metatune.check.recipes` makes one of a recipe.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from metatune.check.numbers import CheckedHorizon, Sample
from metatune.hypergrad import (
    Checkpoints,
    Hypergradient,
    Problem,
    State,
    as_argument,
    evaluated,
    hypergradient,
    measured,
    train,
)
from metatune.hypergrad.estimator import Estimator, Listener
from metatune.hypergrad.problem import Batches, Growth
from metatune.tunables.blocks import WindowBlock, growths

HYPERGRADIENT: Final = 4.0
"""Trainings that a hypergradient takes as long as, about."""


class Task(NamedTuple):
    """What is computed next.

    Attributes:
        what: in words.
        cost: in trainings of the whole horizon, about.
        further: whether `measuring.cost` did not foresee it.
    """

    what: str
    cost: float
    further: bool = False


Watch = Callable[[Task], Listener | None]
"""Is told what is computed next; returns a listener for it."""


class Draw(NamedTuple):
    """What a seed determines.

    Attributes:
        state: the state before inner step 0.
        batches: the batch of an inner step.
        outer_batches: held-out batches.
        key: of the estimator's random directions.
    """

    state: State
    batches: Batches
    outer_batches: Sequence[Any]
    key: jax.Array


@dataclass(frozen=True, eq=False)
class Subject:
    """A training and its hypergradient.

    Attributes:
        problem: the training and its objective.
        eta: the meta-parameters at which it is checked; of arrays with two axes or more the first
            is that of the windows.
        draw: what a seed, 0 and above, determines.
        steps: the horizon.
        estimator: how it is differentiated.
        points: of a number of steps, those after which the objective is taken, and its weights.
        window: differentiate through so many steps at the end; None for all.
        shorter: to a number of steps the same training over these, its schedules stretched with
            it; None where there is none.
        whole: the training of which this one is a stretch; None if it is whole.
        checkpoints: which states are kept between the sweeps.
        watch: is told what is computed.
        own: how far the recipe goes; None where this goes as far.
        pace: of a horizon that isn't the whole, its steps over those of the whole.
        blocks: the windows behind which the growth of the adjoint is watched.
        origin: of a growth where it is born, as of `metatune.inner.origin`.
        choices: of parameters and a held-out batch, the numbers of the experts that each token
            passes through, [..., chosen]; None of a model without.
    """

    problem: Problem
    eta: Mapping[str, jax.Array]
    draw: Callable[[int], Draw]
    steps: int
    estimator: Estimator
    points: Callable[[int], Mapping[int, float]] = lambda steps: {steps: 1.0}
    window: int | None = None
    shorter: "Callable[[int], Subject | None]" = lambda steps: None
    whole: "Subject | None" = None
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    watch: Watch = lambda work: None
    own: CheckedHorizon | None = None
    pace: float = 1.0
    blocks: Sequence[WindowBlock] = ()
    origin: Callable[[Growth], Mapping[str, Any]] | None = None
    choices: Callable[[Any, Any], jax.Array] | None = None

    @property
    def horizon(self) -> CheckedHorizon:
        """How far it goes."""
        differentiated = min(self.window or self.steps, self.steps)
        return CheckedHorizon(
            self.steps, differentiated, self.whole.steps if self.whole else self.steps
        )

    @property
    def flat(self) -> np.ndarray:
        """η as one vector, [N]."""
        return np.asarray(ravel_pytree(self.eta)[0])

    def shifted(self, by: np.ndarray) -> Any:
        """η moved by a vector, [N]."""
        flat, unflatten = ravel_pytree(self.eta)
        return unflatten(flat + jnp.asarray(by, flat.dtype))

    def hypergradient(self, draw: Draw, what: str) -> Hypergradient:
        """The recipe's own estimate."""
        work = Task(what, HYPERGRADIENT * self.pace)
        return self._estimate(draw, work, self.problem, self.eta, self.estimator, self.checkpoints)

    def along(
        self, draw: Draw, work: Task, directions: np.ndarray, estimator: Estimator
    ) -> np.ndarray:
        """Derivatives of the objective along directions [n, N] by another estimator, [n].

        The meta-parameters are the coefficients c of η + Σ c_i v_i, so that any estimator will do.
        """
        problem = as_argument(self.problem)
        dtype = ravel_pytree(self.eta)[0].dtype
        rows = jnp.asarray(directions, dtype)
        along = jax.tree_util.Partial(_hyper_along, problem.hyper_at, self.eta, rows)
        zeros = jnp.zeros(len(directions), dtype)
        start = problem.start
        if start is not None:
            start = jax.tree_util.Partial(_start_along, start, self.eta, rows)
        restricted = replace(problem, hyper_at=along, start=start)
        found = self._estimate(draw, work, restricted, zeros, estimator, Checkpoints())
        return np.asarray(found.gradient, np.float64)

    def _estimate(
        self,
        draw: Draw,
        work: Task,
        problem: Problem,
        eta: Any,
        estimator: Estimator,
        checkpoints: Checkpoints,
    ) -> Hypergradient:
        return hypergradient(
            problem,
            eta,
            draw.state,
            draw.batches,
            draw.outer_batches,
            steps=self.steps,
            window=self.window,
            points=self.points(self.steps),
            estimator=estimator,
            checkpoints=checkpoints,
            key=draw.key,
            listener=self.watch(work),
        )


class FixedDraw:
    """A subject with one draw held fixed: trained parameters and objective as functions of η."""

    def __init__(self, subject: Subject, draw: Draw):
        """Runs the steps before the window once, since no η that is asked about acts in them."""
        self.subject, self.draw = subject, draw
        window = min(subject.window or subject.steps, subject.steps)
        self._first, self._state, self._value = subject.steps - window, draw.state, 0.0
        self._points = subject.points(subject.steps)
        if self._first:
            self._state, self._value = self._measured(
                subject.eta, draw.state, 0, self._first, Task("before the window", 1.0)
            )

    def trained(self, by: np.ndarray, what: str) -> Any:
        """The trained parameters, as they are evaluated, at η moved by a vector, [N]."""
        eta = self.subject.shifted(by)
        count, listener = self.subject.steps - self._first, self.subject.watch(Task(what, 1.0))
        return self.evaluated(self._trained(eta, self._state, self._first, count, listener))

    def measured(self, by: np.ndarray, what: str, further: bool = False) -> float:
        """The objective, wherever the subject takes it, at η moved by a vector, [N]."""
        eta, steps = self.subject.shifted(by), self.subject.steps
        work = Task(what, 1.0, further)
        return self._value + self._measured(eta, self._state, self._first, steps, work)[1]

    def evaluated(self, state: State) -> Any:
        """The parameters of a state that the objective is taken of."""
        return evaluated(self.subject.problem, state)

    def objective(self, params: Any) -> float:
        """The objective F."""
        return measured(self.subject.problem, params, self.draw.outer_batches, np.float64)

    def _measured(
        self, eta: Any, state: State, start: int, stop: int, work: Task
    ) -> tuple[State, float]:
        """The state at `stop`, and the objective at the points on the way there, weighted."""
        listener, value = self.subject.watch(work), 0.0
        for point in sorted({stop, *(at for at in self._points if start < at < stop)}):
            state = self._trained(eta, state, start, point - start, listener)
            if weight := self._points.get(point):
                value += weight * self.objective(self.evaluated(state))
            start = point
        return state, value

    def _trained(
        self, eta: Any, state: State, start: int, steps: int, listener: Listener | None
    ) -> State:
        return train(
            self.subject.problem,
            eta,
            state,
            self.draw.batches,
            steps=steps,
            start=start,
            segment=self.subject.estimator.segment,
            listener=listener,
        )[0]


def sample(subject: Subject, draw: Draw, what: str) -> Sample:
    """The hypergradient of a draw, as vectors."""
    found = subject.hypergradient(draw, what)
    gradient = np.asarray(ravel_pytree(found.gradient)[0], np.float64)
    known = found.diagnostics.standard_errors
    if known is not None:
        errors = np.asarray(ravel_pytree(known)[0], np.float64)
    else:
        random = subject.estimator.draws and len(gradient) > 1
        errors = np.full(len(gradient), np.inf if random else 0.0)
    losses = np.asarray(found.diagnostics.losses, np.float64)
    finite = bool(np.isfinite([*losses, float(found.value)]).all())
    value, growth = float(found.value), found.diagnostics.growth
    if growth is None or growth.tangents:
        return Sample(value, gradient, errors, finite)
    grown = growths(growth, subject.blocks, subject.steps)
    damped = float(np.exp(np.asarray(growth.damped, np.float64).sum()))
    origin = subject.origin(growth) if subject.origin else None
    return Sample(value, gradient, errors, finite, grown, damped, origin)


def samples(subject: Subject, seeds: int, what: str) -> tuple[Sample, ...]:
    """The hypergradients of the draws 0 to `seeds` - 1."""
    return tuple(
        sample(subject, subject.draw(seed), f"{what}, seed {seed + 1} of {seeds}")
        for seed in range(seeds)
    )


def _hyper_along(
    hyper_at: Callable[..., Any], eta: Any, directions: jax.Array, coefficients: Any, step: Any
) -> Any:
    return hyper_at(_moved(eta, directions, coefficients), step)


def _start_along(
    start: Callable[..., Any], eta: Any, directions: jax.Array, coefficients: Any, state: State
) -> State:
    return start(_moved(eta, directions, coefficients), state)


def _moved(eta: Any, directions: jax.Array, coefficients: Any) -> Any:
    flat, unflatten = ravel_pytree(eta)
    return unflatten(flat + coefficients @ directions)
