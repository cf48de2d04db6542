"""Which stretch of which inner training an outer step differentiates through."""

from typing import NamedTuple

from metatune.fit.checkpoints import Search
from metatune.recipe.schema import Full, Online, Recipe, Truncated


class Stretch(NamedTuple):
    """A stretch of inner steps.

    Attributes:
        training: number of the inner training, of which initialisation and data follow.
        start: its first inner step; a stretch that starts later goes on from `Search.inner`.
        steps: inner steps up to the objective.
        window: of these, so many at the end are differentiated; None for all.
    """

    training: int
    start: int
    steps: int
    window: int | None = None


def stretch(recipe: Recipe, search: Search) -> Stretch:
    """The stretch of the next outer step."""
    steps = recipe.inner.steps
    match recipe.outer.unroll:
        case Full():
            return Stretch(search.step, 0, steps)
        case Truncated(window=window):
            return Stretch(search.step, 0, steps, window)
        case Online(window=window):
            left = lifetime(recipe) - search.age
            return Stretch(search.life, search.age, min(window, left))


def aged(recipe: Recipe, search: Search, steps: int, inner: object) -> Search:
    """The search after an outer step of `steps` inner steps that led to the state `inner`."""
    if not isinstance(recipe.outer.unroll, Online):
        return search
    age = search.age + steps
    if age < lifetime(recipe):
        return search._replace(inner=inner, age=age)
    return search._replace(inner=inner, age=0, life=search.life + 1)


def lifetime(recipe: Recipe) -> int:
    """Inner steps of an inner training."""
    unroll = recipe.outer.unroll
    given = unroll.lifetime if isinstance(unroll, Online) else None
    return given or recipe.inner.steps
