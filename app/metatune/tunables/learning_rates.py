"""Learning rates: multipliers of the base schedule, by parameters and windows, in log space."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64

from metatune.artefact.sections import elements as within
from metatune.artefact.sections import rates as sections
from metatune.hypergrad.shapes import Scalar, StepLike
from metatune.recipe import schema
from metatune.tunables.between_cells import BetweenCells
from metatune.tunables.elements import Elements, elements
from metatune.tunables.groups import Groups, group
from metatune.tunables.hyper import Hyper, Setting, Tunable
from metatune.tunables.shapes import Slices
from metatune.tunables.used import Used
from metatune.tunables.windows import between_knots, window_of


@dataclass(frozen=True, eq=False)
class TunableLearningRates:
    """`rate_t(parameter) = base_t * m_t(parameter)` with multipliers m of the parameters' cells.

    A cell is what shares a multiplier: a group of parameters, or an element, row or column of one;
    parameters of a model of another depth lie between two.
    At knot k it is `m = exp b(η_k)`, where b bounds logarithms smoothly, `b(η) = L tanh(η / L)`
    with `L = log max_multiplier`, of slope one at η = 0; without a bound, `b(η) = η`. Windows are
    knots whose multiplier is held until the next begins; or it moves on lines between knots.

    Attributes:
        cells: what shares a multiplier.
        windows: how many windows, or knots.
        steps: horizon of the inner training.
        interpolation: `constant` within windows of equal length, or `linear` between knots that
            are evenly spread from the first step to the last.
        max_multiplier: that no multiplier reaches, nor one over it; None for no bound.
        smoothness: weight of the penalty on how log multipliers change from knot to knot.
        prior: weight of the penalty on log multipliers.
    """

    cells: Groups | Elements | BetweenCells
    windows: int
    steps: int
    interpolation: Literal["constant", "linear"] = "constant"
    max_multiplier: float | None = None
    smoothness: float = 0.0
    prior: float = 0.0
    key: str = "learning_rates"

    @property
    def knots(self) -> tuple[float, ...]:
        """Where the knots are, in fractions of the training."""
        if self.interpolation == "constant" or self.windows == 1:
            return tuple(window / self.windows for window in range(self.windows))
        gap = (self.steps - 1) / (self.windows - 1)
        return tuple(knot * gap / self.steps for knot in range(self.windows))

    def initial(self) -> Float[Array, "{self.windows} {self.cells.size}"]:
        """All multipliers one: zeros, [windows, cells]."""
        return jnp.zeros((self.windows, self.cells.size), jnp.float32)

    def apply(
        self, eta: Float[Array, "{self.windows} {self.cells.size}"], step: StepLike, hyper: Hyper
    ) -> Hyper:
        """Multiplies each parameter's rate by its cell's multiplier at this step."""

        def scale(rate: Float[Array, "..."], chosen: Float[Array, "..."]) -> Float[Array, "..."]:
            return rate * chosen.reshape(chosen.shape + (1,) * (rate.ndim - chosen.ndim))

        multipliers = self.cells.spread(self._multipliers_at(eta, step))
        return hyper._replace(learning_rate=jax.tree.map(scale, hyper.learning_rate, multipliers))

    def penalty(self, eta: Float[Array, "{self.windows} {self.cells.size}"]) -> Scalar:
        """`prior * mean (log m)² + smoothness * mean (log m_{k+1} - log m_k)²`.

        The first mean is over knots and cells, the second over neighbouring knots and cells.
        """
        logs = self._logs(eta)
        total = self.prior * jnp.mean(logs**2)
        if self.windows > 1:
            total += self.smoothness * jnp.mean(jnp.diff(logs, axis=0) ** 2)
        return total

    def multipliers(
        self, eta: Float[np.ndarray, "{self.windows} {self.cells.size}"]
    ) -> Float64[np.ndarray, "{self.windows} {self.cells.size}"]:
        """The multipliers at the knots."""
        logs = np.asarray(eta, np.float64)
        if self.max_multiplier is not None:
            most = np.log(self.max_multiplier)
            logs = most * np.tanh(logs / most)
        return np.exp(logs)

    def _multipliers_at(
        self, eta: Float[Array, "{self.windows} {self.cells.size}"], step: StepLike
    ) -> Float[Array, "{self.cells.size}"]:
        if self.windows == 1:
            return jnp.exp(self._logs(eta[0]))
        if self.interpolation == "constant":
            return jnp.exp(self._logs(eta[window_of(step, self.windows, self.steps)]))
        before, along = between_knots(step, self.windows, self.steps)
        first, second = (jnp.exp(self._logs(eta[knot])) for knot in (before, before + 1))
        along = along.astype(eta.dtype)
        return (1 - along) * first + along * second

    def _logs(self, eta: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        if self.max_multiplier is None:
            return eta
        most = np.log(self.max_multiplier).astype(eta.dtype)
        return most * jnp.tanh(eta / most)


def build(spec: schema.LearningRatesSpec, setting: Setting) -> TunableLearningRates:
    """The tunable of a recipe's `tune.learning_rates`.

    Raises:
        RecipeError: a regular expression matches no parameter.
    """
    if spec.per in ("row", "column", "element"):
        cells = elements(setting.names, setting.shapes, spec.per)
    else:
        cells = group(setting.names, spec.per, "tune.learning_rates.per")
    return TunableLearningRates(
        cells,
        spec.windows,
        setting.steps,
        spec.interpolation,
        spec.max_multiplier,
        spec.smoothness,
        spec.prior,
    )


def section(tunables: Sequence[Tunable], eta: Slices, used: Used) -> sections.LearningRates:
    """The rate of every parameter as every step used it, and what was tuned of it, if anything."""
    curves = used.trajectory.learning_rates
    kept, schedule = used.scheduled(list(curves.values()))
    tuned = next((each for each in tunables if isinstance(each, TunableLearningRates)), None)
    return sections.LearningRates(
        parameters={name: curve[kept] for name, curve in curves.items()},
        multipliers=tuned and _multipliers(tuned, eta),
        elements=tuned and _elements(tuned, eta),
        **schedule,
    )


def _multipliers(tuned: TunableLearningRates, eta: Slices) -> sections.Multipliers | None:
    if not isinstance(tuned.cells, Groups):
        return None
    values = tuned.multipliers(np.asarray(eta[tuned.key]))
    return sections.Multipliers(
        tuned.knots,
        groups={
            label: tuple(map(float, values[:, i])) for i, label in enumerate(tuned.cells.labels)
        },
        members=tuned.cells.members,
        interpolation=tuned.interpolation,
    )


def _elements(tuned: TunableLearningRates, eta: Slices) -> within.ElementFactors | None:
    if not isinstance(tuned.cells, Elements):
        return None
    values = tuned.multipliers(np.asarray(eta[tuned.key])).astype(np.float32)
    return within.ElementFactors(tuned.knots, tuned.interpolation, tuned.cells.by_name(values))
