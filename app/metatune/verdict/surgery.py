"""Tuned schedules with a part set back to the recipe's own, or made simpler."""

from dataclasses import replace
from typing import Final

import numpy as np

from metatune.artefact import Artefact, LearningRates, Mixture, Multipliers
from metatune.artefact.curves import fractions, where_changed
from metatune.artefact.kinds import kind_of
from metatune.verdict.structure import Structure

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


def window_logs(default: Artefact, tuned: Artefact, count: int) -> Table:
    """Logarithms of the tuned factors in so many windows, [windows, parameters]: means."""
    logs = log_factors(default, tuned)
    window = windows_of(len(logs), count)
    return np.stack([logs[window == at].mean(axis=0) for at in range(count)])


def structured_rates(
    default: Artefact, tuned: Artefact, structure: Structure, digits: int
) -> Artefact:
    """The recipe's own rates times factors of a structure: means of the tuned ones, rounded.

    Means are of logarithms, over the parameters of a cluster and the windows of a stretch.

    Args:
        default: has the recipe's own rates.
        tuned: those that were tuned.
        structure: of its windows and parameters, in the order of the artefact's.
        digits: significant digits of a number.
    """
    own, count = rate_table(default), len(structure.stretch)
    values = structure.fitted(window_logs(default, tuned, count))
    if structure.product:
        # A factor of each stretch, that of the first cluster, times one for each other cluster.
        stretches = _rounded(np.exp(values[:, 0]), digits)
        clusters = _rounded(np.exp(values[0] - values[0, 0]), digits)
        factors = stretches[:, None] * clusters[None, :]
    else:
        factors = _rounded(np.exp(values), digits)
    names = list(tuned.learning_rates.parameters)
    columns = [np.flatnonzero(structure.cluster == at) for at in range(structure.clusters)]
    labels = [f"rates {at}" for at in range(1, len(columns) + 1)] if len(columns) > 1 else [ALL]
    table = own * factors[structure.stretch[windows_of(len(own), count)]][:, structure.cluster]
    begins = [int(np.argmax(structure.stretch == at)) for at in range(structure.stretches)]
    multipliers = Multipliers(
        fractions((first_of(window, count, len(own)) for window in begins), len(own)),
        {label: tuple(map(float, factors[:, at])) for at, label in enumerate(labels)},
        {label: tuple(names[i] for i in own) for label, own in zip(labels, columns, strict=True)},
    )
    return with_rates(tuned, table, multipliers)


def _rounded(factors: np.ndarray, digits: int) -> np.ndarray:
    return np.asarray([float(f"{each:.{digits}g}") for each in factors.ravel()]).reshape(
        factors.shape
    )


ALL: Final = "all"


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
