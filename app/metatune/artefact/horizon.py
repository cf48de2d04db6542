"""Carries an artefact to a training of another length: what stretches, and what stays."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from metatune.artefact.curves import STEP_TOLERANCE
from metatune.artefact.errors import ArtefactError
from metatune.artefact.format import Artefact
from metatune.artefact.sections.elements import ElementFactors
from metatune.artefact.sections.rates import Multipliers
from metatune.recipe.faults import Fault, unknown

FARTHEST = 4
"""Times the tuned horizon, or one part in so many: beyond it a schedule is a guess."""

WARMUPS = ("steps", "fraction")

CARRIED = "carried_to_steps"
"""In the provenance of an artefact whose warmup was kept in steps: the training it is for."""

ROUNDING = 1e-9
"""Relative; a rate over its multiplier is the base rate to this much."""


def carried(artefact: Artefact, steps: int, warmup: str) -> Artefact:
    """The artefact for a training of `steps` updates.

    With `fraction` it is the same: all knots are fractions of training, and the warmup is too.
    With `steps` the warmup takes as many updates as it took in the tuned training, and the rest
    of the learning rates stretches over the rest; mixture and loss weights stay in fractions.

    Args:
        artefact: as it was tuned.
        steps: updates of the training to come.
        warmup: what is kept of the warmup.

    Raises:
        ArtefactError: another word for `warmup`, a warmup that doesn't fit into `steps`, or an
            artefact that was carried to another number of updates before.
    """
    if warmup not in WARMUPS:
        raise ArtefactError("export", [unknown("warmup", warmup, "rule", warmup, WARMUPS)])
    made_for = artefact.provenance.get(CARRIED)
    if made_for is not None:
        if made_for != steps:
            problem = f"the warmup was kept in steps for a training of {made_for} updates alone"
            cure = "export from the run instead of from an export"
            raise ArtefactError("export", [Fault("steps", steps, problem, cure)])
        return artefact
    held = warmup_steps(artefact)
    if warmup == "fraction" or not held or steps == artefact.horizon_steps:
        return artefact
    if held >= steps:
        problem = f"the warmup of {held} updates, kept in steps, doesn't fit"
        cure = "give more, or `warmup` fraction"
        raise ArtefactError("export", [Fault("steps", steps, problem, cure)])
    tuned, new = held / artefact.horizon_steps, held / steps

    def moved(knots: tuple[float, ...]) -> tuple[float, ...]:
        at = np.asarray(knots)
        rest = new + (at - tuned) * ((1 - new) / (1 - tuned))
        # `at` of a step is a whole number over the horizon: it keeps its update exactly.
        return tuple(np.where(at <= tuned, at * (artefact.horizon_steps / steps), rest).tolist())

    rates, multipliers = artefact.learning_rates, artefact.learning_rates.multipliers
    if multipliers is not None:
        knots, values = _with_knot(multipliers, multipliers.groups, tuned)
        groups = {group: tuple(map(float, row)) for group, row in values.items()}
        multipliers = dataclasses.replace(multipliers, knots=moved(knots), groups=groups)
    elements = rates.elements
    if elements is not None:
        knots, values = _with_knot(elements, elements.parameters, tuned)
        elements = dataclasses.replace(elements, knots=moved(knots), parameters=values)
    stretched = dataclasses.replace(
        rates, knots=moved(rates.knots), multipliers=multipliers, elements=elements
    )
    return dataclasses.replace(
        artefact, learning_rates=stretched, provenance={**artefact.provenance, CARRIED: steps}
    )


def _with_knot(
    schedule: Multipliers | ElementFactors, values: Mapping[str, Any], at: float
) -> tuple[tuple[float, ...], Mapping[str, Any]]:
    """Knots and values of a schedule, with a knot at fraction `at` if lines go through there."""
    knots = schedule.knots
    before = int(np.searchsorted(knots, at, side="right"))
    if schedule.interpolation == "constant" or at in knots or before == len(knots):
        return knots, values
    along = (at - knots[before - 1]) / (knots[before] - knots[before - 1])

    def inserted(rows: Any) -> np.ndarray:
        rows = np.asarray(rows)
        between = (1 - along) * rows[before - 1] + along * rows[before]
        return np.insert(rows, before, between, axis=0)

    found = {name: inserted(rows) for name, rows in values.items()}
    return (*knots[:before], at, *knots[before:]), found


def warmup_steps(artefact: Artefact) -> int:
    """Updates of the tuned training before its base schedule reached its peak."""
    base = base_rates(artefact)
    peak = int(np.flatnonzero(base >= base.max() * (1 - ROUNDING))[0])
    return round(artefact.learning_rates.knots[peak] * artefact.horizon_steps)


def base_rates(artefact: Artefact, of: str | None = None) -> np.ndarray:
    """The recipe's base schedule at the knots of the learning rates, float64 [knots].

    Args:
        artefact: what was tuned.
        of: the parameter that it is of, where optimizers side by side have several.

    Raises:
        ArtefactError: every group has a multiplier of zero, which leaves nothing of the schedule.
    """
    rates = artefact.learning_rates
    if rates.multipliers is None:
        return rates.parameters[of or next(iter(rates.parameters))]
    if of is not None and not any(of in each for each in rates.multipliers.members.values()):
        return rates.parameters[of]
    for (group, members), own in zip(
        rates.multipliers.members.items(), multipliers_at_knots(artefact), strict=True
    ):
        there = members if of is None else [name for name in members if name == of]
        if min(rates.multipliers.groups[group]) > 0 and there:
            return rates.parameters[there[0]] / own
    problem = "every group has a multiplier of 0 somewhere: the base schedule can't be known"
    fault = Fault("learning_rates.multipliers", list(rates.multipliers.groups), problem)
    raise ArtefactError("artefact", [fault])


def multipliers_at_knots(artefact: Artefact) -> np.ndarray:
    """The multipliers at each knot of the learning rates, [groups, knots], ones where none are.

    In the order of their members.
    """
    rates, multipliers = artefact.learning_rates, artefact.learning_rates.multipliers
    if multipliers is None:
        return np.ones((1, len(rates.knots)))
    table = np.asarray([multipliers.groups[group] for group in multipliers.members])
    if multipliers.interpolation == "linear":
        return np.stack([np.interp(rates.knots, multipliers.knots, row) for row in table])
    # A window may begin between two updates: the rates change at the next.
    at = np.asarray(rates.knots) + STEP_TOLERANCE / artefact.horizon_steps
    return table[:, np.searchsorted(multipliers.knots, at, side="right") - 1]


def distance(artefact: Artefact, steps: int, tokens_per_step: int) -> str | None:
    """A warning where the training to come is far from the one that was tuned."""
    tokens = steps * tokens_per_step
    ratios = {
        "updates": steps / artefact.horizon_steps,
        "tokens": tokens / artefact.horizon_tokens,
    }
    if all(1 / FARTHEST <= ratio <= FARTHEST for ratio in ratios.values()):
        return None
    far = " and ".join(f"{ratio:.3g} times the {what}" for what, ratio in ratios.items())
    return (
        f"{far} of the tuned training ({artefact.horizon_steps:,} updates, "
        f"{artefact.horizon_tokens:,} tokens): beyond {FARTHEST} times the schedules are a guess; "
        "tune over a longer training, or compare with your defaults first"
    )
