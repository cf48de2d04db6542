"""Absolute learning rates of every parameter as values: at any step, by parameter and by group."""

import difflib
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from metatune.artefact.curves import Interpolation, value_at, values_at
from metatune.artefact.errors import ArtefactError
from metatune.artefact.sections import elements as within
from metatune.artefact.sections.elements import ElementFactors
from metatune.artefact.sections.section import BASE, Columns
from metatune.recipe.faults import ABSENT, Fault

KEY: Final = "learning_rates"


@dataclass(frozen=True)
class Multipliers:
    """What was tuned of the learning rates: factors of the base schedule.

    Attributes:
        knots: fractions of training; the first is 0, they increase, all are below 1.
        groups: a factor for each knot, by group.
        members: checkpoint names of the parameters of each group.
        interpolation: `constant` holds a knot's factor until the next, `linear` joins them.
    """

    knots: tuple[float, ...]
    groups: Mapping[str, tuple[float, ...]]
    members: Mapping[str, tuple[str, ...]]
    interpolation: Interpolation = "constant"


@dataclass(frozen=True, eq=False)
class LearningRates:
    """Absolute learning rates, for every parameter of the model.

    Attributes:
        knots: fractions of training; the first is 0, they increase, all are below 1.
        interpolation: `constant` holds a knot's value until the next, `linear` joins them.
        parameters: float64 rates per update, [knots], by Hugging Face checkpoint name.
        multipliers: what was tuned of them; None if these rates are those of the recipe.
        elements: what was tuned within parameters: a parameter's rate times its factors is the
            rate of its elements; None if all of a parameter has one rate.
    """

    knots: tuple[float, ...]
    interpolation: Interpolation
    parameters: Mapping[str, np.ndarray]
    multipliers: Multipliers | None = None
    elements: ElementFactors | None = None

    def rate(self, name: str, step: int, total: int) -> float | np.ndarray:
        """The rate of a parameter at update `step` of `total`; see `Artefact.learning_rate`."""
        if name not in self.parameters:
            close = difflib.get_close_matches(name, self.parameters, n=3)
            near = f"the nearest are {', '.join(close)}" if close else "none has a similar name"
            problem = f"not one of the {len(self.parameters)} parameters"
            raise ArtefactError("artefact", [Fault("name", name, problem, near)])
        rate = float(value_at(self.knots, self.parameters[name], self.interpolation, step, total))
        if (own := self.elements) is None:
            return rate
        factors = value_at(own.knots, own.parameters[name], own.interpolation, step, total)
        return rate * factors.astype(np.float64)

    def over(self, steps: Sequence[int], total: int) -> np.ndarray:
        """Rates at some updates of `total`, [steps, parameters].

        Raises:
            ArtefactError: a negative step or a total below 1, or rates within parameters.
        """
        if self.elements is not None:
            problem = "rates were tuned within parameters, which have no single one"
            fault = Fault(f"{KEY}.elements", ABSENT, problem, "ask for `learning_rate`")
            raise ArtefactError("artefact", [fault])
        return values_at(self.knots, self._table.T, self.interpolation, steps, total)

    @functools.cached_property
    def _table(self) -> np.ndarray:
        """The rates of all parameters, [parameters, knots]."""
        return np.stack(list(self.parameters.values()))

    def averaged(self, horizon: int) -> "LearningRates":
        """One rate for each parameter: the mean over its elements, rows or columns."""
        return self._collapsed(within.MEANS, horizon)

    def summarised(self, horizon: int) -> "LearningRates":
        """Rates to look at: of each parameter `NAME 10 %`, `NAME median`, ...

        They are quantiles over its elements, rows or columns at each knot.
        """
        return self._collapsed(within.QUANTILES, horizon)

    def _collapsed(self, reductions: within.Reductions, horizon: int) -> "LearningRates":
        """Rates of whole parameters; the same if they are."""
        if (own := self.elements) is None:
            return self
        names, table = within.reduced(own.parameters, reductions)
        base = np.stack([self.parameters[name] for name in names.values()], axis=1)
        steps = within.where_they_may_change((self, own), horizon).tolist()
        rates = values_at(self.knots, base, self.interpolation, steps, horizon)
        rates = rates * values_at(own.knots, table, own.interpolation, steps, horizon)
        return LearningRates(
            tuple(step / horizon for step in steps),
            "constant",
            dict(zip(names, rates.T, strict=True)),
            Multipliers(
                own.knots,
                {label: tuple(row.tolist()) for label, row in zip(names, table.T, strict=True)},
                {label: (label,) for label in names},
                own.interpolation,
            ),
        )


def base_curve(rates: LearningRates, steps: Sequence[int], total: int) -> np.ndarray:
    """The recipe's base schedule, rates per update [steps]: a tuned rate over its multiplier."""
    rates = rates.summarised(total)
    if (tuned := rates.multipliers) is None:
        curve = next(iter(rates.parameters.values()))
        return values_at(rates.knots, curve, rates.interpolation, steps, total)
    group, (name, *_) = next(iter(tuned.members.items()))
    factors = np.asarray(tuned.groups[group])
    return values_at(
        rates.knots, rates.parameters[name], rates.interpolation, steps, total
    ) / values_at(tuned.knots, factors, tuned.interpolation, steps, total)


def curves(rates: LearningRates, steps: Sequence[int], total: int) -> Columns:
    """Absolute learning rates by group at some updates of `total`.

    Returns:
        Rates per update [steps] by group; where no rates were tuned, one `base` curve; where they
        were tuned within parameters, quantiles over each. Where optimizers side by side give
        parameters of a group several base rates, a curve for each, by the first that has it.
    """
    rates = rates.summarised(total)
    tuned = rates.multipliers
    members = {BASE: tuple(rates.parameters)} if tuned is None else tuned.members
    return {
        label: values_at(rates.knots, rates.parameters[name], rates.interpolation, steps, total)
        for group, names in members.items()
        for label, name in told_apart(group, names, rates).items()
    }


def told_apart(group: str, names: Sequence[str], rates: LearningRates) -> dict[str, str]:
    """A name for each different curve of a group's members; they share one but for their bases."""
    firsts = {rates.parameters[name].tobytes(): name for name in reversed(names)}
    if len(firsts) == 1:
        return {group: names[0]}
    return {f"{group}: {name}": name for name in names if name in firsts.values()}
