"""Rates within parameters, in numbers that stand for all of a parameter: means or quantiles."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from metatune.artefact.format import (
    STEP_TOLERANCE,
    Artefact,
    ElementFactors,
    Interpolation,
    LearningRates,
    Multipliers,
    value_at,
)

Reductions = Mapping[str, Callable[[np.ndarray], np.ndarray]]
"""From factors [knots, elements] to [knots], by what is put after the parameters' names."""

QUANTILES: Final[Reductions] = {
    f" {label}": lambda factors, at=at: np.quantile(factors, at, axis=1)
    for label, at in {"10 %": 0.1, "median": 0.5, "90 %": 0.9}.items()
}


def averaged(artefact: Artefact) -> Artefact:
    """An artefact with one rate for each parameter: the mean over its elements, rows or columns."""
    return _collapsed(artefact, {"": lambda factors: factors.mean(axis=1, dtype=np.float64)})


def summarised(artefact: Artefact) -> Artefact:
    """An artefact to look at: for each parameter NAME rates `NAME 10 %`, `NAME median`, ...

    They are quantiles over its elements, rows or columns at each knot.
    """
    return _collapsed(artefact, QUANTILES)


def quantile_curves(
    rates: Mapping[str, np.ndarray], elements: ElementFactors
) -> dict[str, np.ndarray]:
    """Quantiles of the rates within each parameter at every update, [updates] by name and quantile.

    Args:
        rates: what the factors are of, at every update, by name.
        elements: the factors.
    """
    names, table = _reduced(elements, QUANTILES)
    base = np.stack([rates[name] for name in names.values()], axis=1)
    steps = np.arange(len(base))
    curves = base * _over(elements.knots, table, elements.interpolation, steps, len(base))
    return dict(zip(names, curves.T, strict=True))


def _collapsed(artefact: Artefact, reductions: Reductions) -> Artefact:
    """An artefact of rates for whole parameters; the same if it is one."""
    rates, elements = artefact.learning_rates, artefact.learning_rates.elements
    if elements is None:
        return artefact
    total = artefact.horizon_steps
    names, table = _reduced(elements, reductions)
    base = np.stack([rates.parameters[name] for name in names.values()], axis=1)
    steps = _where_it_may_change(rates, elements, total)
    curves = _over(rates.knots, base, rates.interpolation, steps, total) * _over(
        elements.knots, table, elements.interpolation, steps, total
    )
    collapsed = LearningRates(
        tuple((steps / total).tolist()),
        "constant",
        dict(zip(names, curves.T, strict=True)),
        Multipliers(
            elements.knots,
            {label: tuple(own.tolist()) for label, own in zip(names, table.T, strict=True)},
            {label: (label,) for label in names},
            elements.interpolation,
        ),
    )
    return dataclasses.replace(artefact, learning_rates=collapsed)


def _reduced(elements: ElementFactors, reductions: Reductions) -> tuple[dict[str, str], np.ndarray]:
    """The parameter by label, and reduced factors float64 [knots, labels]."""
    names, columns = {}, []
    for name, factors in elements.parameters.items():
        for suffix, reduce in reductions.items():
            names[name + suffix] = name
            columns.append(reduce(factors.reshape(len(factors), -1)))
    return names, np.stack(columns, axis=1).astype(np.float64)


def _where_it_may_change(rates: LearningRates, elements: ElementFactors, total: int) -> np.ndarray:
    """The updates, of `total`, whose rates may differ from those of the one before."""
    if "linear" in (rates.interpolation, elements.interpolation):
        return np.arange(total)
    knots = np.concatenate([rates.knots, elements.knots])
    steps = np.unique(np.ceil(knots * total - STEP_TOLERANCE).astype(int))
    return steps[steps < total]


def _over(
    knots: tuple[float, ...],
    values: np.ndarray,
    interpolation: Interpolation,
    steps: np.ndarray,
    total: int,
) -> np.ndarray:
    """A schedule of values [knots, n] at some updates, [steps, n]."""
    return np.stack([value_at(knots, values, interpolation, int(t), total) for t in steps])
