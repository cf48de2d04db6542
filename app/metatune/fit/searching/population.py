"""A population in the outer loop: which training each member is in, and what their spread tells."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from metatune.fit.searching.search import Search
from metatune.fit.searching.truncation import Span, lifetime
from metatune.hypergrad import Diagnostics, Member, State, train
from metatune.hypergrad.population import signal
from metatune.hypergrad.problem import Batches
from metatune.hypergrad.stacking import member, side_by_side, stack
from metatune.inner import InnerTraining, estimators
from metatune.inner.seeds import Purpose, direction_key, model_key
from metatune.recipe import schema
from metatune.recipe.phases import Phase

CLEAR: Final = 2.0
"""Signal to noise above which the sign of a hypergradient is taken for known."""


def optimizers(outer: schema.OuterSpec) -> int | None:
    """How many members have an outer optimizer of their own; None where there is one for all."""
    population = outer.population
    return population.members if population and population.adam == "own" else None


def like(inner: Any, outer: schema.OuterSpec) -> Any:
    """What is carried on of a population, of the shape of one training's."""
    if outer.population is None:
        return inner
    count = outer.population.members
    # In one program as it has them, over an axis of the mesh for them if there is one.
    together = outer.population.vmap
    return side_by_side(count, lambda _: inner)[0] if together else stack([inner] * count)


def ages(recipe: schema.Recipe, phase: Phase) -> tuple[int, ...]:
    """Inner steps that each member is ahead of the first.

    `⌊m W / M⌋` windows of the W of a lifetime, for member m of M.
    """
    outer, unroll = recipe.outer, phase.unroll
    if outer.population is None:
        return (0,)
    count = outer.population.members
    if not outer.population.stagger or not isinstance(unroll, schema.OnlineSpec):
        return (0,) * count
    windows = lifetime(recipe, unroll) // unroll.window
    return tuple(number * windows // count * unroll.window for number in range(count))


def spans(recipe: schema.Recipe, phase: Phase, first: Span) -> tuple[Span, ...]:
    """The span of each member, from that of the first."""
    if not isinstance(phase.unroll, schema.OnlineSpec):
        return tuple(first for _ in ages(recipe, phase))
    whole = lifetime(recipe, phase.unroll)
    found = []
    for ahead in ages(recipe, phase):
        lives, age = divmod(first.start + ahead, whole)
        found.append(first._replace(training=first.training + lives, start=age))
    return tuple(found)


def members(
    training: InnerTraining,
    phase: Phase,
    search: Search,
    span: Span,
    batches: Callable[[int, int], Batches],
) -> list[Member]:
    """The trainings of an outer step.

    Args:
        training: the inner training.
        phase: the one that the search is in.
        search: where the search stands.
        span: that of the first member.
        batches: the number of a training and that of a member to its data.
    """
    recipe, fresh = training.recipe, training.recipe.outer.fresh
    first = search.step == search.phase_start

    def of(number: int, at: Span) -> Member:
        key = model_key(
            recipe.seed,
            Purpose.HYPERGRADIENT,
            at.training if fresh.initialisation else 0,
            number,
        )
        drawn = batches(at.training, number)

        def begin() -> State:
            if not at.start:
                return training.initialise(key)
            if not first:
                return training.placed(member(search.inner, number))
            return train(
                training.reweighted,
                search.eta,
                training.initialise(key),
                drawn,
                steps=at.start,
                # Ages are whole windows: one program for all of them.
                segment=min(estimators.build(phase.estimator).segment, at.steps),
                donate=True,
            )[0]

        return Member(begin, drawn, at.start, direction_key(recipe.seed, search.step, number))

    return [of(*each) for each in enumerate(spans(recipe, phase, span))]


def spread(diagnostics: Diagnostics) -> dict[str, Any]:
    """What the members' hypergradients tell of their mean, by tunable, for the metrics.

    Returns:
        `standard_error`, its norm; and `signal`, of the meta-parameters' `|mean| / standard error`
        the median (null without any noise) and the share above 2. Nothing of a single training.
    """
    if diagnostics.members is None:
        return {}
    errors, strengths = {}, {}
    for key, leaf in diagnostics.members.items():
        gradients = np.asarray(leaf, np.float64).reshape(len(leaf), -1)
        error = gradients.std(0, ddof=1) / np.sqrt(len(gradients))
        errors[key] = float(np.linalg.norm(error))
        found = signal(gradients)
        median = float(np.median(found)) if found.size else np.inf
        strengths[key] = {
            "median": median if np.isfinite(median) else None,
            "above_2": float(np.mean(found > CLEAR)) if found.size else None,
        }
    return {"standard_error": errors, "signal": strengths}


def summary(outer: schema.OuterSpec, lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a result says of a population: the signal by tunable, in the mean over outer steps."""
    if outer.population is None or not lines:
        return {}

    def mean(key: str, name: str) -> float | None:
        known = [line["signal"][key][name] for line in lines]
        known = [value for value in known if value is not None]
        return float(np.mean(known)) if known else None

    strengths = {
        key: {name: mean(key, name) for name in found} for key, found in lines[0]["signal"].items()
    }
    return {"population": {"members": outer.population.members, "signal": strengths}}
