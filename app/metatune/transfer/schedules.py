"""Schedules of a proxy as those of a target: each parameter's counterpart, times its factor."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from metatune.artefact import Artefact, LearningRates, Multipliers, Optimizer, OptimizerSchedules
from metatune.artefact.horizon import multipliers_at_knots
from metatune.artefact.sections.optimizer import GROUPS, TREATED
from metatune.transfer.factors import Factors
from metatune.transfer.mapping import Between, interpolated, renumbered_label
from metatune.transfer.stepping import TURNED

Counterparts = Mapping[str, Between]

BASE = "the base rate"
"""What a parameter of no group has, where one that lies beside it has a group."""

AVERAGES = ("b1", "b2")
"""Settings of the optimizer that say how much of an average stays in an update."""


def rates(artefact: Artefact, ours: Counterparts, factors: Factors) -> LearningRates:
    """The learning rates of the target; its multipliers have the factors, the base schedule none.

    Args:
        artefact: of the proxy.
        ours: where each of the target's parameters lies in the proxy.
        factors: of the target's parameters.
    """
    tuned = artefact.learning_rates
    curves = {
        name: factors.parameters[name].learning_rate * interpolated(at, tuned.parameters)
        for name, at in ours.items()
    }
    return replace(tuned, parameters=curves, multipliers=_multipliers(artefact, ours, factors))


def _multipliers(artefact: Artefact, ours: Counterparts, factors: Factors) -> Multipliers:
    tuned = artefact.learning_rates
    multipliers = tuned.multipliers
    if multipliers is None:
        every = tuple(tuned.parameters)
        multipliers = Multipliers((0.0,), {"all": (1.0,)}, {"all": every})
    group_of = {name: label for label, names in multipliers.members.items() for name in names}
    if multipliers.interpolation == "linear" and _any_between(ours, group_of):
        # Between layers is in log space and between knots on lines: at the knots of the rates
        # themselves both can be had.
        table = multipliers_at_knots(artefact).tolist()
        groups = dict(zip(multipliers.members, map(tuple, table), strict=True))
        multipliers = Multipliers(tuned.knots, groups, multipliers.members, tuned.interpolation)
    values: dict[str, tuple[float, ...]] = {}
    members: dict[str, list[str]] = {}
    known = {**multipliers.groups, BASE: (1.0,) * len(multipliers.knots)}
    found = {
        name: _cell(name, at, group_of)
        for name, at in ours.items()
        if at.lower in group_of or at.upper in group_of
    }
    parted = _parted(found, factors)
    for name, (label, lower, upper, along) in found.items():
        factor = factors.parameters[name].learning_rate
        if label in parted:
            label = f"{label}, x{factor:.4g}"
        groups = {label: np.asarray(known[label]) for label in (lower, upper)}
        curve = factor * interpolated(Between(lower, upper, along), groups)
        values[label] = tuple(map(float, curve))
        members.setdefault(label, []).append(name)
    return Multipliers(
        multipliers.knots,
        values,
        {label: tuple(names) for label, names in members.items()},
        multipliers.interpolation,
    )


def _cell(name: str, at: Between, group_of: Mapping[str, str]) -> tuple[str, str, str, float]:
    """The label of a parameter's group, and the groups of the proxy that it lies between."""
    lower, upper = group_of.get(at.lower, BASE), group_of.get(at.upper, BASE)
    along = at.along if lower != upper else 0.0
    first = renumbered_label(lower, at.lower, name)
    second = renumbered_label(upper, at.upper, name)
    label = first if first == second else f"{first} to {second}, {along:.3g} of the way"
    return label, lower, upper, along


def _parted(found: Mapping[str, tuple[str, str, str, float]], factors: Factors) -> set[str]:
    """Labels whose members have more than one factor."""
    seen: dict[str, set[float]] = {}
    for name, (label, *_) in found.items():
        seen.setdefault(label, set()).add(factors.parameters[name].learning_rate)
    return {label for label, own in seen.items() if len(own) > 1}


def _any_between(ours: Counterparts, group_of: Mapping[str, str]) -> bool:
    return any(
        at.along and group_of.get(at.lower) != group_of.get(at.upper) for at in ours.values()
    )


def optimizer(artefact: Artefact, ours: Counterparts, factors: Factors) -> Optimizer:
    """The optimizer of the target.

    What all parameters have alike is in its settings; weight decay that differs is a schedule, of
    several optimizers side by side any that changes. ε that differs is no part of it: see
    `eps_apart`.
    """
    tuned = artefact.optimizer
    decayed = tuple(name for name, at in ours.items() if at.lower in set(tuned.decayed))
    changes = _changes(tuned, factors)
    settings = _changed(tuned.settings, "", changes)
    if GROUPS in tuned.settings:
        settings[GROUPS] = [
            _followed(_changed(group, f"{GROUPS}[{place}].", changes), ours)
            for place, group in enumerate(tuned.settings[GROUPS])
        ]
    schedules = tuned.schedules
    if schedules is not None:
        values = {
            key: changes[key](curve) if key in changes else curve
            for key, curve in schedules.values.items()
        }
        schedules = replace(schedules, values=values)
    decays = {name: factors.parameters[name].weight_decay for name in decayed}
    own = {name: _decay(tuned, ours[name].lower) for name in decayed}
    shared = common(decays.values()) if GROUPS not in settings else None
    if schedules is not None and (by_name := schedules.weight_decay) is not None:
        new = {n: factor * interpolated(ours[n], by_name) for n, factor in decays.items()}
        schedules = replace(schedules, weight_decay=new)
    elif shared is None and any(own.values()) and set(decays.values()) != {1.0}:
        knots = schedules.knots if schedules else (0.0,)
        each = {name: np.full(len(knots), factor * own[name]) for name, factor in decays.items()}
        schedules = (
            replace(schedules, weight_decay=each)
            if schedules
            else OptimizerSchedules(knots, "constant", {}, each)
        )
    if shared is not None:
        settings["weight_decay"] *= shared
    return Optimizer(settings, decayed, schedules)


def _changed(
    settings: Mapping[str, Any], prefix: str, changes: Mapping[str, Any]
) -> dict[str, Any]:
    """The settings of an optimizer, or of a group, with what changes of them by its whole name."""
    return {
        key: float(changes[prefix + key](value)) if prefix + key in changes else value
        for key, value in settings.items()
    }


def _followed(group: Mapping[str, Any], ours: Counterparts) -> dict[str, Any]:
    """A group of the target's parameters: those whose counterparts are in it."""
    lists = [key for key in ("parameters", *TREATED.get(group["kind"], ())) if key in group]
    members = {key: set(group[key]) for key in lists}
    return {
        **group,
        **{key: [n for n, at in ours.items() if at.lower in own] for key, own in members.items()},
    }


def _decay(tuned: Optimizer, name: str) -> float:
    """The weight decay of a parameter of the proxy, as it started."""
    groups = tuned.settings.get(GROUPS)
    return (groups[tuned.place(name)] if groups else tuned.settings)["weight_decay"]


def eps_apart(tuned: Optimizer, factors: Factors) -> dict[str, float]:
    """Factors of ε by name, where not all are one and the same; empty where they are.

    Of several optimizers side by side where they aren't all one: no setting is of all of them.
    """
    found = {name: factor.eps for name, factor in factors.parameters.items()}
    shared = common(found.values())
    return {} if shared == 1 or (shared is not None and GROUPS not in tuned.settings) else found


def common(numbers: Iterable[float]) -> float | None:
    """The one that all of them are; 1 of none, None where they differ."""
    found = set(numbers)
    return (found or {1.0}).pop() if len(found) <= 1 else None


def _changes(tuned: Optimizer, factors: Factors) -> dict[str, Any]:
    """What becomes of settings that all parameters share, or those of a group, by whole name."""
    found: dict[str, Any] = {}
    if factors.memory != 1:
        # At most all of a new number is taken: an average can't forget faster.
        def shorter(value: Any) -> Any:
            return 1 - np.minimum(1.0, (1 - value) * factors.memory)

        grouped = GROUPS in tuned.settings
        for place, kind in enumerate(tuned.kinds):
            if kind not in TURNED:
                prefix = f"{GROUPS}[{place}]." if grouped else ""
                found |= {prefix + key: shorter for key in AVERAGES}
    eps = common(factor.eps for factor in factors.parameters.values())
    if GROUPS not in tuned.settings and eps not in (None, 1.0):
        found["eps"] = lambda value: value * eps
        found["eps_root"] = lambda value: value * eps**2
    return found


def changed_settings(before: Optimizer, after: Optimizer) -> dict[str, float]:
    """Settings that aren't what they were, of groups as `groups[0].b1`."""
    numbers = before.numbers
    return {key: float(value) for key, value in after.numbers.items() if value != numbers[key]}
