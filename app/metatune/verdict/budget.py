"""What a search has spent, counted from the run's own record: what every contestant may spend."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from metatune.inner.estimators import MIXFLOW
from metatune.inner.estimators import gradients as of_reverse
from metatune.recipe import schema
from metatune.recipe.phases import Phase, resolved
from metatune.recipe.schema import Recipe


class Spent(NamedTuple):
    """What a search took.

    Attributes:
        inner_steps: of all trainings that were run forwards, validation included.
        gradients: gradients of an inner step, those of the derivatives included.
        seconds: of all its outer steps and validations.
    """

    inner_steps: int
    gradients: float
    seconds: float

    def trainings(self, steps: int) -> float:
        """In whole trainings of so many inner steps."""
        return self.inner_steps / steps


def spent(recipe: Recipe, lines: Iterable[Mapping[str, Any]], numbers: int) -> Spent:
    """What a run's search took: hypergradients, validations and differences.

    What measured the result isn't counted: every contestant is measured, too. Nor are validations
    that diverged, of which the record doesn't tell how many trainings they took.

    Args:
        recipe: of the run.
        lines: of its metrics.
        numbers: how many meta-parameters it has.
    """
    phases, outer = resolved(recipe.outer), recipe.outer
    members = outer.population.members if outer.population else 1
    sizes = 1
    if outer.robust:
        # In steps of the recipe's own size: parameters grow with the square of the width.
        sizes = sum(wide**2 * deep for wide in outer.robust.widths for deep in outer.robust.depths)
        members = sizes * outer.robust.seeds
    steps, gradients, seconds = 0, 0.0, 0.0
    for line in lines:
        seconds += line["seconds"]
        validated = sizes * _validations(outer, line) * recipe.inner.steps
        steps, gradients = steps + validated, gradients + validated
        if "objective" not in line:
            continue
        phase = phases[line["phase"]]
        forwards, differentiated = _hypergradient(recipe, phase, line["inner_steps"], numbers)
        count = _trainings(line) or members
        steps += count * forwards
        gradients += count * differentiated
        for each in (line.get("blended") or {}).get("windows", ()):
            if each.get("measured"):  # two trainings, of each member, or of others beside one
                count = members if members > 1 else each.get("trainings", 1)
                steps += 2 * count * line["inner_steps"]
                gradients += 2 * count * line["inner_steps"]
    return Spent(steps, gradients, seconds)


def _trainings(line: Mapping[str, Any]) -> int:
    """Trainings that were differentiated by the way that was chosen; 0 where none was."""
    found = line.get("chosen") or {}
    return found.get("measured", {}).get("hypergradients", found.get("trainings", 0))


def course(
    recipe: Recipe, lines: Sequence[Mapping[str, Any]], numbers: int
) -> tuple[tuple[int, float], ...]:
    """Inner steps that a search had spent, and its best validation loss by then; as of `Chosen`.

    A loss is the mean over the seeds of a validation. Arguments as of `spent`.
    """
    found: list[tuple[int, float]] = []
    for number, line in enumerate(lines, 1):
        judged = [line.get("held_out"), line.get("held_out_average")]
        best = min((loss for loss in judged if loss is not None), default=math.inf)
        if best < (found[-1][1] if found else math.inf):
            found.append((spent(recipe, lines[:number], numbers).inner_steps, best))
    return tuple(found)


def _validations(outer: schema.OuterSpec, line: Mapping[str, Any]) -> int:
    """Trainings that a point was judged by."""
    found = len(line.get("held_out_each") or ())
    count = found or (0 if line.get("held_out") is None else outer.validation.seeds)
    averaged = line.get("held_out_average") is not None and line["step"] > 0
    return count + (outer.validation.seeds if averaged else 0)


def _hypergradient(
    recipe: Recipe, phase: Phase, differentiated: int, numbers: int
) -> tuple[int, float]:
    """Inner steps forwards, and gradients, of a hypergradient of one training."""
    steps, spec = recipe.inner.steps, phase.estimator
    truncated = isinstance(phase.unroll, schema.TruncatedSpec)
    before = max(0, steps - differentiated) if truncated else 0
    match spec:
        case schema.ForwardSpec():
            each, ways = 1 + 2.0 * numbers, 1
        case schema.ForwardGradientSpec(directions=count):
            each, ways = 1 + 2.0 * count, 1
        case schema.ZerothOrderSpec(directions=count):
            each, ways = 2.0 * count, 2 * count
        case schema.PersistentESSpec(pairs=count):
            each, ways = 2.0 * count, 2 * count
        case schema.MixFlowSpec() | schema.ReverseSpec():
            each, ways = of_reverse(spec), 1
        case schema.AutoSpec():  # which takes mixflow, if nothing else is said
            each, ways = MIXFLOW, 1
    return ways * (before + differentiated), ways * before + each * differentiated


def in_trainings(budget: int, steps: int) -> int:
    """Whole trainings of so many inner steps that a budget is good for; one at least."""
    return max(1, budget // steps)
