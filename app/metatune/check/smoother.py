"""Which changes make a training smoother, and what they cost in loss.

A hypergradient that is noise, or that of a wrinkle, may belong to a training that hardly differs
from one whose hypergradient is neither: the second moments of Adam under a larger root, or a longer
warmup. Each change is trained on the same starts and data as the recipe, at the recipe's own
schedules, and looked at for the growth of its adjoint and for what is left of its derivative over a
search's step.

Source: Engstrom et al., Optimizing ML Training with Metagradient Descent, 2025, section 4, who find
a metasmooth training by such changes by hand; arXiv 2503.13751.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from rich.console import Console

from metatune.check.growth import LIMIT
from metatune.check.linearity import LEAST, MOST, left_over_step
from metatune.check.numbers import Settings
from metatune.check.progress import CheckDisplay
from metatune.check.recipes import first_phase_alone, subject_of
from metatune.check.slopes import random_directions, slopes_over_step
from metatune.check.subject import HYPERGRADIENT, FixedDraw, Subject, sample
from metatune.inner import InnerTraining
from metatune.recipe.measures import unit
from metatune.recipe.schema import (
    GroupsSpec,
    MixFlowSpec,
    OptimizerGroupSpec,
    Recipe,
    ReverseSpec,
    least,
)

AS_IT_IS: Final = "as it is"
ROOTS: Final = (1e-10, 1e-8, 1e-6)
"""Of `eps_root`."""
EPSILONS: Final = (1e-6, 1e-4)
"""Of `eps`."""
WARMUPS: Final = (0.1, 0.2)
"""Fractions of training."""

Prepare = Callable[[Recipe], InnerTraining]


class Tried(NamedTuple):
    """A change, and what became of the training.

    Attributes:
        change: as an override of the recipe, or `as it is`.
        losses: of the objective at the end, over the seeds.
        growth: how many times its least later the adjoint is, behind the window of the most.
        left: of the derivative over a search's step.
    """

    change: str
    losses: tuple[float, ...]
    growth: float
    left: float

    @property
    def smooth(self) -> bool:
        """Whether a search is told where to go."""
        return self.growth < LIMIT and LEAST <= self.left <= MOST

    @property
    def loss(self) -> float:
        """The mean over the seeds."""
        return float(np.mean(self.losses))


def changes(recipe: Recipe) -> Iterator[tuple[str, Recipe]]:
    """The recipe as it is, then with each change that it has a field for and doesn't have yet."""
    yield AS_IT_IS, recipe
    optimizer = recipe.inner.optimizer

    def changed(**fields: Any) -> Recipe:
        inner = replace(recipe.inner, optimizer=replace(optimizer, **fields))
        return replace(recipe, inner=inner)

    for field, values in (("eps_root", ROOTS), ("eps", EPSILONS)):
        own = least(optimizer, field)
        for value in values:
            if own is None or value <= own:
                continue
            if isinstance(optimizer, GroupsSpec):
                groups = tuple(_raised(group, field, value) for group in optimizer.groups)
                yield f"inner.optimizer.groups[*].{field}={value:g}", changed(groups=groups)
            else:
                yield f"inner.optimizer.{field}={value:g}", changed(**{field: value})
    schedule = optimizer.schedule
    for warmup in WARMUPS:
        if warmup > schedule.warmup and warmup + getattr(schedule, "decay", 0.0) <= 1:
            longer = changed(schedule=replace(schedule, warmup=warmup))
            yield f"inner.optimizer.schedule.warmup={warmup:g}", longer


def _raised(group: OptimizerGroupSpec, field: str, value: float) -> OptimizerGroupSpec:
    """A group whose number is at least so much, if it has one."""
    own = getattr(group, field, None)
    return group if own is None or own >= value else replace(group, **{field: value})


def tried(
    recipe: Recipe, prepare: Prepare, settings: Settings, *, scratch: Path, console: Console
) -> tuple[Tried, ...]:
    """Tries all changes, the recipe as it is first.

    Args:
        recipe: whose estimator is chosen; MixFlow in the place of one that doesn't go back through
            the training.
        prepare: makes the training of a recipe.
        settings: `seeds` trainings of each change, and `directions`; the step is the search's.
        scratch: a folder for states that are kept on disk.
        console: where progress is shown.

    Raises:
        RecipeError: it has no hypergradient that could be looked at.
    """
    first = first_phase_alone(recipe)
    if not isinstance(first.outer.estimator, MixFlowSpec | ReverseSpec):
        first = replace(first, outer=replace(first.outer, estimator=MixFlowSpec()))
    settings = settings._replace(step=first.outer.optimizer.learning_rate)
    asked, found = list(changes(first)), []
    with CheckDisplay(console) as display:
        each = settings.seeds - 1 + HYPERGRADIENT + 2 * settings.directions
        display.begin(len(asked) * each)
        display.say(f"objectives are {unit(first)}")
        for change, made in asked:
            display.say(change)
            subject = subject_of(prepare(made), scratch, display.watch)
            found.append(_looked_at(change, subject, settings))
    return tuple(found)


def _looked_at(change: str, subject: Subject, settings: Settings) -> Tried:
    draw = subject.draw(0)
    seen = sample(subject, draw, f"{change}, hypergradient")
    directions = random_directions(len(subject.flat), settings.directions, settings.seed)
    still = np.zeros(len(subject.flat))
    losses = [seen.value]
    for seed in range(1, settings.seeds):
        what = f"{change}, training {seed + 1} of {settings.seeds}"
        losses.append(FixedDraw(subject, subject.draw(seed)).measured(still, what))
    left = math.nan
    if np.isfinite(seen.gradient).all():
        held = FixedDraw(subject, draw)
        left = left_over_step(slopes_over_step(held, seen, directions, settings.step))
    return Tried(change, tuple(losses), float(np.max(seen.grown, initial=0.0)), left)


def advice(found: Sequence[Tried]) -> Tried | None:
    """The smooth one of the least loss; None where there is none.

    The recipe as it is where that is smooth.
    """
    if found[0].smooth:
        return found[0]
    smooth = [each for each in found if each.smooth and math.isfinite(each.loss)]
    return min(smooth, key=lambda each: each.loss, default=None)


def as_json(found: Sequence[Tried]) -> dict[str, Any]:
    """All of it as plain JSON values, what isn't finite as null."""
    chosen = advice(found)

    def plain(value: float) -> float | None:
        return value if math.isfinite(value) else None

    def row(each: Tried) -> Mapping[str, Any]:
        return {
            "change": each.change,
            "losses": [plain(loss) for loss in each.losses],
            "growth": plain(each.growth),
            "left": plain(each.left),
            "smooth": each.smooth,
        }

    return {"tried": [row(each) for each in found], "advice": chosen and chosen.change}
