"""Curves: values at knots, which are fractions of training, and the value at each update.

So a schedule stretches over a training of any length.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np

from metatune.artefact.errors import ArtefactError
from metatune.recipe.faults import Fault

STEP_TOLERANCE = 1e-6
"""Of a step: a knot k/T times a total T may miss the whole number k by rounding."""

Interpolation = Literal["constant", "linear"]
"""`constant` holds a knot's value until the next, `linear` joins them."""


class Schedule(Protocol):
    """What moves over training.

    Attributes:
        knots: fractions of training; the first is 0, they increase, all are below 1.
        interpolation: how values go on from their knots.
    """

    @property
    def knots(self) -> tuple[float, ...]: ...  # noqa: D102

    @property
    def interpolation(self) -> Interpolation: ...  # noqa: D102


def value_at(
    knots: Sequence[float], values: np.ndarray, interpolation: Interpolation, step: int, total: int
) -> np.ndarray:
    """The value of a schedule at update `step` (from 0) of a training of `total` updates.

    `constant`: the value of the last knot that is at or before step / total. `linear`: on the
    line between the two knots around step / total. After the last knot its value stays.

    Args:
        knots: fractions of training, the first 0, increasing.
        values: [knots, ...].
        interpolation: see above.
        step: 0 is the first update.
        total: updates of the training.

    Returns:
        The value, shaped like one of `values`.

    Raises:
        ArtefactError: a negative step or a total below 1.
    """
    return values_at(knots, values, interpolation, (step,), total)[0]


def values_at(
    knots: Sequence[float],
    values: np.ndarray,
    interpolation: Interpolation,
    steps: Iterable[int],
    total: int,
) -> np.ndarray:
    """The values of a schedule at several updates, [steps, ...]; else as `value_at`."""
    if isinstance(steps, range):  # millions of updates would be as many objects
        at = np.arange(steps.start, steps.stop, steps.step)
    else:
        at = np.asarray([*steps])
    if (negative := at[at < 0]).size:
        problem = "steps count from 0, the first update"
        fault = Fault("step", int(negative[0]), problem, "give 0 or above")
        raise ArtefactError("artefact", [fault])
    if total < 1:
        problem = "a training has at least one update"
        raise ArtefactError("artefact", [Fault("total", total, problem, "give 1 or above")])
    before = np.searchsorted(knots, (at + STEP_TOLERANCE) / total, side="right") - 1
    if interpolation == "constant" or len(knots) == 1:
        return values[before]
    places, last = np.asarray(knots), len(knots) - 1
    after = np.minimum(before + 1, last)
    span = np.where(before == last, 1.0, places[after] - places[before])
    along = np.where(before == last, 0.0, np.maximum(0.0, at / total - places[before]) / span)
    # Values in float32 are interpolated in float64.
    along = along.reshape(-1, *(1,) * (values.ndim - 1))
    return (1 - along) * values[before] + along * values[after]


def rows_at(schedule: Any, steps: Iterable[int], total: int) -> np.ndarray:
    """The `weights` of a schedule at several updates, [steps, columns]."""
    return values_at(schedule.knots, schedule.weights, schedule.interpolation, steps, total)


def curves_at(
    schedule: Schedule, curves: Mapping[str, np.ndarray], steps: Iterable[int], total: int
) -> dict[str, np.ndarray]:
    """Several curves [knots] of a schedule at several updates, [steps] each."""
    steps = list(steps)
    return {
        name: values_at(schedule.knots, curve, schedule.interpolation, steps, total)
        for name, curve in curves.items()
    }


def where_changed(rows: np.ndarray) -> np.ndarray:
    """Indices of the rows that differ from the one before, the first included."""
    changed = np.any(rows[1:] != rows[:-1], axis=1)
    return np.concatenate([[0], 1 + np.flatnonzero(changed)])


def fractions(steps: Iterable[int], horizon: int) -> tuple[float, ...]:
    """Knots at some updates of a training of `horizon`."""
    return tuple(float(step / horizon) for step in steps)


def floats(numbers: Iterable[float]) -> tuple[float, ...]:
    """Numbers of a document as floats."""
    return tuple(float(number) for number in numbers)


def arrays(curves: Mapping[str, Sequence[float]]) -> dict[str, np.ndarray]:
    """Curves of a document as float64 arrays."""
    return {name: np.asarray(curve, np.float64) for name, curve in curves.items()}


def lists(curves: Mapping[str, np.ndarray]) -> dict[str, list[float]]:
    """The same the other way round."""
    return {name: curve.tolist() for name, curve in curves.items()}


def counted(count: int, one: str, many: str = "") -> str:
    """A number of things in words."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def stretches(schedule: Schedule) -> str:
    """How many stretches of training a schedule has, in words."""
    return f"{counted(len(schedule.knots), 'stretch', 'stretches')} of training"
