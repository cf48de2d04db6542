"""The walk over the phases of a search: when one is over, and what the next one begins with."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

import jax
import jax.numpy as jnp

from metatune.fit.searching import outer_optimizers, population, trust
from metatune.fit.searching.meta_update import optimizer
from metatune.fit.searching.search import Search
from metatune.fit.searching.sharing import sharing
from metatune.fit.signal.signal import memory
from metatune.inner import InnerTraining, estimators
from metatune.recipe.phases import Phase, horizons
from metatune.recipe.schema import ForwardGradientSpec, OnlineSpec, PersistentESSpec, Recipe


class End(StrEnum):
    """Why a phase is over."""

    STEPS = "all its outer steps are done"
    CONVERGED = "every step size is below the tolerance"
    PATIENCE = "its patience has run out"


def end_of(phase: Phase, patience: int | None, search: Search) -> End | None:
    """Why a phase is over; None while it goes on.

    Args:
        phase: the one that the search is in.
        patience: outer steps without a new best, counted from its first; None for any number.
        search: where the search stands.
    """
    if search.step - search.phase_start >= phase.steps:
        return End.STEPS
    if outer_optimizers.converged(phase.optimizer, search.opt_state):
        return End.CONVERGED
    since_best = search.step - max(search.best_step, search.phase_start)
    if patience is not None and since_best > patience:
        return End.PATIENCE
    return None


def begin(training: InnerTraining, phase: Phase, eta: Mapping[str, Any]) -> Search:
    """A search that begins with a phase, at meta-parameters `eta`."""
    outer = training.recipe.outer
    shares = sharing(training)
    moments = optimizer(phase, outer, counted=shares is not None)
    inner: Any = ()
    if isinstance(phase.unroll, OnlineSpec):
        # A state of the shape that is carried on; the first one comes from the outer step.
        inner = training.initialise(jax.random.key(0))
        if isinstance(phase.estimator, PersistentESSpec):
            inner = estimators.build(phase.estimator).begun(dict(eta), inner)
    controlled = (
        isinstance(phase.estimator, ForwardGradientSpec) and phase.estimator.control_variate
    )
    opt_state = moments.init(dict(eta))
    return Search(
        step=0,
        eta=eta,
        opt_state=opt_state,
        best_eta=eta,
        phase=phase.number,
        inner=population.like(inner, outer),
        control=jax.tree.map(jnp.zeros_like, dict(eta)) if controlled else (),
        average=() if outer.ema is None else eta,
        shared=() if shares is None else shares.begin(),
        signal=memory(training),
        trust=trust.begin(outer, opt_state) if trust.trusts(training.recipe) else (),
    )


def enter(training: InnerTraining, phases: Sequence[Phase], search: Search) -> Search:
    """The search at the beginning of the next phase."""
    before, phase = phases[search.phase : search.phase + 2]
    fresh = begin(training, phase, search.eta)
    keeps = not phase.reset and outer_optimizers.handed_on(
        before.optimizer, phase.optimizer, search.opt_state
    )
    opt_state = search.opt_state if keeps else fresh.opt_state
    return search._replace(
        phase=phase.number,
        phase_start=search.step,
        opt_state=opt_state,
        trust=trust.begin(training.recipe.outer, opt_state) if search.trust else (),
        inner=fresh.inner,
        control=fresh.control,
        age=0,
        life=search.step,  # later than every training so far: another initialisation, other data
    )


def steps_at_most(phases: Sequence[Phase], search: Search) -> int:
    """Outer steps of the whole search if no further phase ends early."""
    return search.phase_start + sum(phase.steps for phase in phases[search.phase :])


def inner_steps_left(recipe: Recipe, phases: Sequence[Phase], search: Search) -> list[int]:
    """Inner steps of each outer step that is left if no further phase ends early."""
    found = []
    for phase in phases[search.phase :]:
        done = search.step - search.phase_start if phase.number == search.phase else 0
        given = horizons(phase.unroll, recipe.inner, recipe.tune) or (recipe.inner.steps,)
        if isinstance(phase.unroll, OnlineSpec):
            given = (phase.unroll.window,)
        found += [given[min(number, len(given) - 1)] for number in range(done, phase.steps)]
    return found
