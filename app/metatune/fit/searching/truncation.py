"""Which steps of which inner training an outer step differentiates through."""

from typing import NamedTuple

from metatune.fit.searching.search import Search
from metatune.recipe.phases import Phase, horizons
from metatune.recipe.schema import FullSpec, OnlineSpec, Recipe, TruncatedSpec


class Span(NamedTuple):
    """Inner steps that follow each other, up to the objective.

    Attributes:
        training: number of the inner training, of which initialisation and data follow.
        start: its first inner step; a span that starts later goes on from `Search.inner`.
        steps: inner steps up to the objective.
        window: of these, so many at the end are differentiated; None for all.
        rescaled: whether these steps are a whole training that schedules are rescaled to.
    """

    training: int
    start: int
    steps: int
    window: int | None = None
    rescaled: bool = False


def next_span(recipe: Recipe, phase: Phase, search: Search) -> Span:
    """The span of the next outer step."""
    steps = recipe.inner.steps
    match phase.unroll:
        case FullSpec():
            given = horizons(phase.unroll, recipe.inner, recipe.tune)
            if given is None:
                return Span(search.step, 0, steps)
            # All of a phase, those that have every step too, so that one program serves them all.
            now = given[min(search.step - search.phase_start, len(given) - 1)]
            return Span(search.step, 0, now, rescaled=True)
        case TruncatedSpec(window=window):
            return Span(search.step, 0, steps, window)
        case OnlineSpec(window=window):
            left = lifetime(recipe, phase.unroll) - search.age
            return Span(search.life, search.age, min(window, left))


def advance(recipe: Recipe, phase: Phase, search: Search, steps: int, inner: object) -> Search:
    """The search after an outer step of `steps` inner steps that led to the state `inner`."""
    if not isinstance(phase.unroll, OnlineSpec):
        return search
    age = search.age + steps
    if age < lifetime(recipe, phase.unroll):
        return search._replace(inner=inner, age=age)
    return search._replace(inner=inner, age=0, life=search.life + 1)


def lifetime(recipe: Recipe, unroll: OnlineSpec) -> int:
    """Inner steps of an inner training."""
    return unroll.lifetime or recipe.inner.steps
