"""What was measured of a subject: plain numbers, from which every verdict follows.

Measuring takes minutes to hours and judging none, so they are apart: a record of these numbers can
be judged again, by other rules, and judges as the training itself did.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, Literal, NamedTuple

import numpy as np

Kind = Literal["random", "coordinate"]

NONE: Final = np.zeros(0)


class Settings(NamedTuple):
    """How much is looked at.

    Attributes:
        seeds: hypergradients, of fresh starts and data; 2 or more.
        directions: random ones, and as many coordinates.
        step: of the metasmoothness, in units of log rate and of logits.
        seed: of the random directions.
    """

    seeds: int = 4
    directions: int = 4
    step: float = 0.1
    seed: int = 0


DEFAULT: Final = Settings()


class CheckedHorizon(NamedTuple):
    """How far a training goes.

    Attributes:
        steps: of the training.
        differentiated: of them, at the end.
        life: of the whole training, where this one is a stretch of it; else the steps.
    """

    steps: int
    differentiated: int
    life: int


class Sample(NamedTuple):
    """The hypergradient of one draw.

    Attributes:
        value: the objective F(θ_T), or its mean along the training.
        gradient: [N], float64.
        errors: standard errors of the gradient, [N]; zero of an exact estimator, infinite where an
            estimate along one random direction doesn't tell.
        finite_losses: whether all inner losses and the objective are finite.
        grown: how many times the adjoint behind each block grew, [blocks]; none of an estimator
            without one.
        damped: what a cap multiplied the adjoint by on its whole way; one for no cap in force.
        origin: where it grew, as of `metatune.inner.origin`; None where no block's is dominated.
    """

    value: float
    gradient: np.ndarray
    errors: np.ndarray
    finite_losses: bool
    grown: np.ndarray = NONE
    damped: float = 1.0
    origin: Mapping[str, Any] | None = None


class Sides(NamedTuple):
    """A direction v, and the objective on either side of η along it.

    Attributes:
        name: its coordinate, or `random 1`.
        kind: of direction.
        derivative: v·g, of the estimator.
        error: standard error of v·g, zero of an exact estimator.
        values: F(η + εv) and F(η - εv), by ε.
    """

    name: str
    kind: Kind
    derivative: float
    error: float
    values: Mapping[float, tuple[float, float]]


class Compared(NamedTuple):
    """Derivatives along the same directions by two estimators.

    Attributes:
        other: the name of the second.
        derivatives: of the first, [D].
        exact: of the second, [D]; none where it can't be used.
        errors: standard errors of the first, [D].
        problem: why the second can't be used; empty if it can.
    """

    other: str
    derivatives: np.ndarray
    exact: np.ndarray
    errors: np.ndarray
    problem: str


class Moved(NamedTuple):
    """How the trained parameters move along a direction.

    Attributes:
        smoothness: S, by those that move by more than their rounding; nan if any isn't finite.
        resolved: share of all movement that is theirs.
    """

    smoothness: float
    resolved: float


class FlippedChoices(NamedTuple):
    """What became of routers' choices over a step.

    Attributes:
        share: that aren't made any more.
        choices: how many there are.
    """

    share: float
    choices: int


class AtHorizon(NamedTuple):
    """Hypergradients over another horizon.

    Attributes:
        name: which.
        steps: that are differentiated.
        samples: one for each seed.
    """

    name: str
    steps: int
    samples: tuple[Sample, ...]


@dataclass(frozen=True)
class Numbers:
    """All that was measured; what numbers which aren't finite leave no sense is None or empty.

    Attributes:
        horizon: that was trained and differentiated.
        own: that of the recipe; another one where the check was shortened.
        estimator: its name.
        eps: of the number format of η.
        shapes: of the meta-parameters, by tunable; the first axis of two or more is the windows'.
        settings: how much was looked at.
        before: F(θ_0) of the first seed.
        samples: hypergradients, one for each seed.
        slopes: the objective around η.
        compared: the estimator with another.
        moved: the trained parameters.
        stretches: shorter horizons, or of a stretch its own hypergradients again.
        whole: that a stretch is compared with; None of what is whole itself.
        blocks: names of the windows whose growth is watched.
        over_step: the objective a search's step away on either side, along the random directions.
        flipped: choices of the routers, over that step; None of a model without experts.
    """

    horizon: CheckedHorizon
    own: CheckedHorizon
    estimator: str
    eps: float
    shapes: Mapping[str, tuple[int, ...]]
    settings: Settings
    before: float
    samples: tuple[Sample, ...]
    slopes: tuple[Sides, ...]
    compared: Compared | None
    moved: Moved | None
    stretches: tuple[AtHorizon, ...]
    whole: AtHorizon | None
    blocks: tuple[str, ...] = ()
    over_step: tuple[Sides, ...] = ()
    flipped: FlippedChoices | None = None

    @property
    def shortened(self) -> bool:
        """Whether the recipe trains for longer."""
        return self.horizon.life < self.own.life

    @property
    def fraction(self) -> float:
        """Differentiated steps over those of the recipe, 1 of an unshortened check."""
        return self.horizon.differentiated / self.own.differentiated

    @property
    def rounding(self) -> float:
        """What an objective is rounded by, at the least, `eps |F|`."""
        value = abs(self.samples[0].value)
        return self.eps * value if math.isfinite(value) else 0.0

    def by_tunable(self, vectors: np.ndarray) -> dict[str, np.ndarray]:
        """Vectors [..., N] as arrays [..., windows, coordinates of a window], by tunable."""
        found, at = {}, 0
        # In the order of `ravel_pytree`, which sorts keys.
        for key, shape in sorted(self.shapes.items()):
            size = math.prod(shape)
            windows = shape[0] if len(shape) > 1 else 1
            own = vectors[..., at : at + size]
            found[key] = own.reshape(*vectors.shape[:-1], windows, size // windows)
            at += size
        return found


def coordinate_names(shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """`mixture[2,0]` for each coordinate, [N], of tunables of these shapes."""
    return [
        key + (f"[{','.join(map(str, index))}]" if index else "")
        for key, shape in sorted(shapes.items())
        for index in np.ndindex(shape)
    ]


def means(found: Sequence[Sample]) -> tuple[np.ndarray, np.ndarray]:
    """The mean hypergradient over seeds and its standard error, [N] each."""
    gradients = np.stack([sample.gradient for sample in found])
    return gradients.mean(0), gradients.std(0, ddof=1) / np.sqrt(len(gradients))


def as_record(numbers: Numbers, digits: int = 7) -> dict[str, Any]:
    """The numbers as JSON has them, arrays in so many digits."""

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return [float(f"{entry:.{digits}g}") for entry in value]
        if isinstance(value, tuple) and hasattr(value, "_asdict"):
            return plain(value._asdict())  # pyright: ignore[reportAttributeAccessIssue]
        if isinstance(value, Mapping):
            return {str(key): plain(entry) for key, entry in value.items()}
        return [plain(entry) for entry in value] if isinstance(value, list | tuple) else value

    return {field.name: plain(getattr(numbers, field.name)) for field in fields(numbers)}


def from_record(record: Mapping[str, Any]) -> Numbers:
    """The numbers of a record."""
    its: dict[str, Any] = dict(record)
    its["horizon"], its["own"] = CheckedHorizon(**its["horizon"]), CheckedHorizon(**its["own"])
    its["shapes"] = {key: tuple(shape) for key, shape in its["shapes"].items()}
    its["settings"] = Settings(**its["settings"])
    its["samples"] = _samples(its["samples"])
    its["slopes"] = tuple(map(_slope, its["slopes"]))
    its["stretches"] = tuple(map(_span, its["stretches"]))
    its["whole"] = its["whole"] and _span(its["whole"])
    its["over_step"] = tuple(map(_slope, its.get("over_step", ())))
    its["blocks"] = tuple(its.get("blocks", ()))
    its["compared"] = its["compared"] and Compared(**_arrays(its["compared"]))
    its["moved"] = its["moved"] and Moved(**its["moved"])
    its["flipped"] = FlippedChoices(**its["flipped"]) if its.get("flipped") else None
    return Numbers(**its)


def _arrays(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: np.array(value, np.float64) if isinstance(value, list) else value
        for key, value in record.items()
    }


def _samples(records: Sequence[Mapping[str, Any]]) -> tuple[Sample, ...]:
    return tuple(Sample(**_arrays(record)) for record in records)


def _slope(record: Mapping[str, Any]) -> Sides:
    values = {float(epsilon): tuple(pair) for epsilon, pair in record["values"].items()}
    its: dict[str, Any] = {**record, "values": values}
    return Sides(**its)


def _span(record: Mapping[str, Any]) -> AtHorizon:
    its: dict[str, Any] = {**record, "samples": _samples(record["samples"])}
    return AtHorizon(**its)
