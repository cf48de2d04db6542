"""Rates within parameters: their factors, and numbers that stand for all of a parameter."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from metatune.artefact.curves import STEP_TOLERANCE, Interpolation, floats
from metatune.artefact.json_schema import SHAPES, scheduled
from metatune.artefact.value_checks import NOT_NEGATIVE, ValueChecker

UNIT: Final = "factor of the parameter's learning rate"


@dataclass(frozen=True, eq=False)
class ElementFactors:
    """What was tuned within the parameters: factors of their learning rates.

    Attributes:
        knots: fractions of training; the first is 0, they increase, all are below 1.
        interpolation: `constant` holds a knot's factors until the next, `linear` joins them.
        parameters: float32 factors [knots, ...] by checkpoint name, each of the rank of the
            tensor, with its size or one along an axis: a factor for each element, row or column.
    """

    knots: tuple[float, ...]
    interpolation: Interpolation
    parameters: Mapping[str, np.ndarray]


Reductions = Mapping[str, Callable[[np.ndarray], np.ndarray]]
"""From factors [knots, elements] to [knots], by what is put after the parameters' names."""

MEANS: Final[Reductions] = {"": lambda factors: factors.mean(axis=1, dtype=np.float64)}

QUANTILES: Final[Reductions] = {
    f" {label}": lambda factors, at=at: np.quantile(factors, at, axis=1)
    for label, at in {"10 %": 0.1, "median": 0.5, "90 %": 0.9}.items()
}


def reduced(
    parameters: Mapping[str, np.ndarray], reductions: Reductions
) -> tuple[dict[str, str], np.ndarray]:
    """The parameter by label, and reduced factors float64 [knots, labels]."""
    names, columns = {}, []
    for name, factors in parameters.items():
        for suffix, reduce in reductions.items():
            names[name + suffix] = name
            columns.append(reduce(factors.reshape(len(factors), -1)))
    return names, np.stack(columns, axis=1).astype(np.float64)


def where_they_may_change(schedules: tuple[Any, ...], total: int) -> np.ndarray:
    """The updates, of `total`, whose values may differ from those of the one before."""
    if any(schedule.interpolation == "linear" for schedule in schedules):
        return np.arange(total)
    knots = np.concatenate([schedule.knots for schedule in schedules])
    steps = np.unique(np.ceil(knots * total - STEP_TOLERANCE).astype(int))
    return steps[steps < total]


def document(factors: ElementFactors) -> dict[str, Any]:
    """What stands in tuned.json; the factors are tensors, named as their parameters."""
    return {
        "unit": UNIT,
        "interpolation": factors.interpolation,
        "knots": factors.knots,
        "shapes": {name: found.shape[1:] for name, found in factors.parameters.items()},
    }


def check(checker: ValueChecker, path: str, stated: Any, names: Sequence[str]) -> None:
    """Collects what is wrong with it; `names` are those of the parameters."""
    if not checker.keys(path, stated, ("unit", "interpolation", "knots", "shapes")):
        return
    checker.scheduled(path, stated, UNIT)
    shapes = stated["shapes"]
    if checker.shapes(f"{path}.shapes", shapes) and set(shapes) != set(names):
        problem = "must have every parameter of learning_rates.parameters and no other"
        checker.fault(f"{path}.shapes", list(shapes), problem)


def check_tensors(
    checker: ValueChecker, path: str, stated: Any, tensors: Mapping[str, np.ndarray]
) -> None:
    """Collects what is wrong with the factors."""
    for name, shape in stated["shapes"].items():
        factors, expected = tensors[name], [len(stated["knots"]), *shape]
        if sound(checker, f"{path}.{name}", factors, "float32", expected, "[knots, ...]"):
            bad = factors[~(np.isfinite(factors) & (factors >= 0))]
            if bad.size:
                checker.fault(f"{path}.{name}", float(bad[0]), NOT_NEGATIVE)


def sound(
    checker: ValueChecker, path: str, held: np.ndarray, kind: str, shape: list[int], axes: str
) -> bool:
    """Whether a tensor has its type and its shape."""
    if list(held.shape) == shape and str(held.dtype) == kind:
        return True
    found = f"{held.dtype} {list(held.shape)}"
    checker.fault(path, found, f"must be {kind} {shape}, for {axes}")
    return False


def read(stated: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> ElementFactors:
    """The factors, from what is sound."""
    held = {name: tensors[name] for name in stated["shapes"]}
    return ElementFactors(floats(stated["knots"]), stated["interpolation"], held)


SCHEMA: Final = scheduled(
    UNIT,
    {"shapes": {**SHAPES, "minProperties": 1}},
    description="What was tuned within parameters: the rate of an element is the parameter's times "
    "its factor. The factors are float32 tensors [knots, *shape] in tensors.file, named as the "
    "parameter; a shape has the tensor's rank, with its size or one along an axis.",
)
