"""Tuned schedules with a part set back to the recipe's own, or made simpler."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage

from metatune.artefact import Artefact, LearningRates, Mixture, Multipliers
from metatune.artefact.curves import fractions, where_changed
from metatune.artefact.kinds import kind_of

Table = np.ndarray
"""Values at every step of a training, float64 [steps, columns]."""


def rate_table(tuned: Artefact) -> Table:
    """The learning rates of all parameters."""
    steps = tuned.horizon_steps
    return tuned.learning_rates.over(range(steps), steps)


def with_rates(tuned: Artefact, table: Table, multipliers: Multipliers | None = None) -> Artefact:
    """Schedules with other learning rates.

    Args:
        tuned: whose parameters they are of.
        table: rates [steps, parameters].
        multipliers: that the rates are of; None for none that can be told.
    """
    kept = where_changed(table)
    columns = dict(zip(tuned.learning_rates.parameters, table[kept].T, strict=True))
    knots = fractions(kept.tolist(), tuned.horizon_steps)
    return replace(
        tuned, learning_rates=LearningRates(knots, "constant", columns, multipliers=multipliers)
    )


def share_table(mixture: Mixture, steps: int) -> Table:
    """The shares of the domains."""
    return np.stack([*mixture.over(range(steps), steps).values()], axis=1)


def with_shares(tuned: Artefact, table: Table) -> Artefact:
    """Schedules with another mixture.

    Args:
        tuned: whose domains it is of.
        table: shares [steps, domains].
    """
    if tuned.mixture is None:
        raise ValueError("schedules without a mixture have no shares")
    kept = where_changed(table)
    knots = fractions(kept.tolist(), tuned.horizon_steps)
    return replace(tuned, mixture=Mixture(knots, "constant", tuned.mixture.domains, table[kept]))


def windows_of(steps: int, count: int) -> np.ndarray:
    """The window of each step, [steps], of so many of equal length."""
    return np.arange(steps) * count // steps


def rates_back(default: Artefact, tuned: Artefact, where: np.ndarray) -> Artefact:
    """Learning rates set back to the recipe's own.

    Args:
        default: has the recipe's own.
        tuned: those that were tuned.
        where: to set back, bool [steps, parameters] or what broadcasts to it.
    """
    own, theirs = rate_table(default), rate_table(tuned)
    return with_rates(tuned, np.where(where, own, theirs))


def shares_back(default: Artefact, tuned: Artefact, where: np.ndarray) -> Artefact:
    """Shares set back to the recipe's own in some steps, bool [steps]."""
    if tuned.mixture is None or default.mixture is None:
        raise ValueError("schedules without a mixture have no shares")
    steps = tuned.horizon_steps
    own, theirs = (share_table(each.mixture, steps) for each in (default, tuned) if each.mixture)
    return with_shares(tuned, np.where(where[:, None], own, theirs))


def kinds(tuned: Artefact) -> dict[str, list[int]]:
    """Columns of the rates by what their parameters are for; others by themselves."""
    found: dict[str, list[int]] = {}
    for column, name in enumerate(tuned.learning_rates.parameters):
        found.setdefault(kind_of(name) or name, []).append(column)
    return found


def log_factors(default: Artefact, tuned: Artefact) -> Table:
    """Logarithms of the tuned rates over the recipe's own; zero where there is no rate."""
    own, theirs = rate_table(default), rate_table(tuned)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((own > 0) & (theirs > 0), np.log(theirs) - np.log(own), 0.0)


def clusters(default: Artefact, tuned: Artefact, count: int) -> dict[str, list[int]]:
    """Columns of the rates in so many clusters, by how alike the logarithms of their factors are.

    Args:
        default: has the recipe's own rates.
        tuned: those that were tuned.
        count: how many clusters, the slowest first.

    Source: Ward, Hierarchical grouping to optimize an objective function, JASA 1963.
    """
    rows = log_factors(default, tuned).T
    number = fcluster(linkage(rows, "ward"), count, "maxclust")
    found = [np.flatnonzero(number == each) for each in np.unique(number)]
    found.sort(key=lambda columns: rows[columns].mean())
    return {f"rates {i}": columns.tolist() for i, columns in enumerate(found, 1)}


ALL: Final = "all"


def simpler_rates(
    default: Artefact, tuned: Artefact, groups: Mapping[str, Sequence[int]], count: int, digits: int
) -> Artefact:
    """The recipe's own rates times a factor for each group and window: means of the tuned ones.

    Means are of logarithms, over the parameters of a group and the steps of a window.

    Args:
        default: has the recipe's own rates.
        tuned: those that were tuned.
        groups: columns of the rates by the name of a group.
        count: windows.
        digits: significant digits of a factor.
    """
    own, logs = rate_table(default), log_factors(default, tuned)
    window = windows_of(len(own), count)
    names = list(tuned.learning_rates.parameters)
    factors, table = {}, own.copy()
    for label, columns in groups.items():
        means = [logs[window == at][:, columns].mean() for at in range(count)]
        factors[label] = tuple(float(f"{np.exp(mean):.{digits}g}") for mean in means)
        table[:, columns] *= np.asarray(factors[label])[window][:, None]
    members = {label: tuple(names[column] for column in own) for label, own in groups.items()}
    knots = fractions((first_of(at, count, len(own)) for at in range(count)), len(own))
    return with_rates(tuned, table, Multipliers(knots, factors, members))


def first_of(window: int, count: int, steps: int) -> int:
    """The first step of a window."""
    return -(-window * steps // count)


def simpler_shares(tuned: Artefact, count: int, grain: float) -> Artefact:
    """Mean shares in each of so many windows, rounded.

    Args:
        tuned: whose mixture it is.
        count: windows.
        grain: of which shares are multiples; what is left over goes to those that lost most.
    """
    if tuned.mixture is None:
        raise ValueError("schedules without a mixture have no shares")
    table = share_table(tuned.mixture, tuned.horizon_steps)
    window = windows_of(len(table), count)
    rows = np.stack([rounded(table[window == at].mean(axis=0), grain) for at in range(count)])
    return with_shares(tuned, rows[window])


def rounded(shares: np.ndarray, grain: float) -> np.ndarray:
    """Shares as multiples of a grain that sum to one; unchanged for a grain of zero.

    >>> rounded(np.asarray([0.63, 0.36, 0.01]), 0.05).tolist()
    [0.65, 0.35, 0.0]
    """
    if not grain:
        return shares / shares.sum()
    parts, whole = shares / shares.sum() / grain, round(1 / grain)
    found = np.floor(parts)
    for index in np.argsort(found - parts, kind="stable")[: int(whole - found.sum())]:
        found[index] += 1
    return found / whole


def numbers(tuned: Artefact) -> int | None:
    """How many numbers the factors of learning rates are; None where none can be told."""
    multipliers: Any = tuned.learning_rates.multipliers
    return None if multipliers is None else len(multipliers.groups) * len(multipliers.knots)
