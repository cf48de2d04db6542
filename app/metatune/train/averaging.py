"""A training that keeps the average of an artefact, or that of its own recipe."""

from dataclasses import replace
from typing import Any

import jax

from metatune import artefact
from metatune.hypergrad import Problem, State
from metatune.inner import InnerTraining
from metatune.tunables.averaging import Averaged, AveragedUpdate, average, averages, begun


def averaged(training: InnerTraining, tuned: artefact.Averaging | None) -> InnerTraining:
    """The training with an average beside its parameters, which is evaluated and kept.

    Args:
        training: the training, whose start and optimizer are those that are wanted.
        tuned: the artefact's; None for the recipe's own, if it has one.
    """
    if tuned is None and not averages(training.tunables):
        return training
    given = training.initialise
    started = jax.eval_shape(given, jax.random.key(0))

    @jax.jit
    def with_average(state: State) -> State:
        return State(state.params, begun(state.params, state.opt_state))

    def initialise(key: jax.Array) -> State:
        return with_average(given(key))

    def problem(own: Problem) -> Problem:
        update: Any = own.update
        if not isinstance(update, AveragedUpdate):
            update = AveragedUpdate(update)
        return replace(own, update=update, evaluated=average)

    return replace(
        training,
        initialise=given if isinstance(started.opt_state, Averaged) else initialise,
        reweighted=problem(training.reweighted),
        sampled=problem(training.sampled),
    )
