"""One learning rate for each parameter, for trainers whose groups share one curve over time."""

import json
import re
from typing import NamedTuple

import numpy as np

from metatune.artefact.format import Artefact
from metatune.artefact.horizon import base_rates
from metatune.artefact.writing import rendered

RATES = "static_rates.json"


class StaticRates(NamedTuple):
    """The rates r_p(t) of an artefact as a_p c(t): a factor for each parameter, one curve for all.

    a_p is the geometric mean over training of the multiplier of p; c is the base schedule.

    Attributes:
        parameters: a_p times the peak of c, by checkpoint name.
        peak: the largest rate of the base schedule.
        last: its rate at the end of training.
        deviation: of a_p c(t) from r_p(t), relative to r_p(t), at most; 0 if multipliers stay.
    """

    parameters: dict[str, float]
    peak: float
    last: float
    deviation: float


def static_rates(artefact: Artefact) -> StaticRates:
    """The rates of `artefact` without their own movement over training."""
    base, multipliers = base_rates(artefact), artefact.learning_rates.multipliers
    peak, deviation = float(base.max()), 0.0
    parameters = dict.fromkeys(artefact.learning_rates.parameters, peak)
    if multipliers is not None:
        lengths = np.diff([*multipliers.knots, 1.0])
        for group, factors in multipliers.groups.items():
            values = np.asarray(factors)
            if np.all(values == values[0]):
                factor = float(values[0])
            else:
                with np.errstate(divide="ignore"):  # a multiplier of 0 makes the mean 0
                    factor = float(np.exp(np.sum(lengths * np.log(values))))
                    deviation = max(deviation, float(np.abs(factor / values - 1).max()))
            for name in multipliers.members[group]:
                parameters[name] = peak * factor
    return StaticRates(parameters, peak, float(base[-1]), deviation)


def rates_file(artefact: Artefact) -> str:
    """The text of static_rates.json, which `metatune_rates.py` reads."""
    rates = static_rates(artefact)
    document = {
        "peak": rates.peak,
        "last": rates.last,
        "parameters": rates.parameters,
        "optimizer": dict(artefact.optimizer.settings),
        "decayed": list(artefact.optimizer.decayed),
    }
    return rendered(json.loads(json.dumps(document))) + "\n"


def groups(artefact: Artefact) -> list[tuple[float, bool, list[str]]]:
    """Parameters with one rate and one weight decay: the rate, whether it decays, their names."""
    decayed, found = set(artefact.optimizer.decayed), {}
    for name, rate in static_rates(artefact).parameters.items():
        found.setdefault((rate, name in decayed), []).append(name)
    return [(rate, decays, names) for (rate, decays), names in found.items()]


def pattern(names: list[str], start: str = "^") -> str:
    """A regular expression that `re.search` finds in exactly these names."""
    return f"{start}(?:{'|'.join(map(re.escape, names))})$"
