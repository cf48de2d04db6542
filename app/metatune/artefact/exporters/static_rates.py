"""One learning rate for each parameter, for trainers whose groups share one curve over time."""

import json
import re
from typing import Any, NamedTuple

import numpy as np

from metatune.artefact.format import Artefact
from metatune.artefact.horizon import ROUNDING, base_rates, multipliers_at_knots
from metatune.artefact.writing import rendered

RATES = "static_rates.json"

PEFT = "base_model.model."
"""What PEFT puts before the names of its model."""


class StaticRates(NamedTuple):
    """The rates r_p(t) of an artefact as a_p c(t) / max c: a rate for each parameter, one curve.

    Attributes:
        parameters: a_p, by checkpoint name: the rate at the peak of the curve.
        curve: c at the knots of the learning rates, float64 [knots].
        deviation: of a_p c(t) / max c from r_p(t), relative to r_p(t), at most.
    """

    parameters: dict[str, float]
    curve: np.ndarray
    deviation: float

    @property
    def peak(self) -> float:
        """The largest value of the curve."""
        return float(self.curve.max())

    @property
    def last(self) -> float:
        """The curve at the end of training."""
        return float(self.curve[-1])


def static_rates(artefact: Artefact) -> StaticRates:
    """The rates of `artefact` without what moves in each by itself; exact if nothing does.

    A parameter has the geometric mean over training of its multiplier, and the curve is the base
    schedule.
    """
    base, multipliers = base_rates(artefact), artefact.learning_rates.multipliers
    names = artefact.learning_rates.parameters
    peaks = dict.fromkeys(names, float(base.max()))
    if len(artefact.optimizer.kinds) > 1:
        peaks = {name: float(base_rates(artefact, name).max()) for name in names}
    if multipliers is None:
        return StaticRates(peaks, base, 0.0)
    factors = multipliers_at_knots(artefact)
    with np.errstate(divide="ignore", invalid="ignore"):  # a multiplier of 0 makes a mean of 0
        logs = np.log(factors)
        lengths = np.diff([*artefact.learning_rates.knots, 1.0])
        own = np.where(np.ptp(factors, axis=1) == 0, logs[:, 0], logs @ lengths)
        fitted = np.exp(np.broadcast_to(own[:, None], logs.shape))
        deviation = np.where(fitted == factors, 0.0, np.abs(fitted / factors - 1)).max()
    parameters = {
        name: float(np.exp(mean) * peaks[name])
        for members, mean in zip(multipliers.members.values(), own, strict=True)
        for name in members
    }
    return StaticRates(parameters, base, float(deviation) if deviation > ROUNDING else 0.0)


def rates_file(artefact: Artefact, **more: Any) -> str:
    """The text of static_rates.json, which `metatune_rates.py` reads, with `more` in it."""
    rates = static_rates(artefact)
    document = {
        "peak": rates.peak,
        "last": rates.last,
        "parameters": rates.parameters,
        **more,
    }
    return rendered(json.loads(json.dumps(document))) + "\n"


def groups(artefact: Artefact) -> list[tuple[float, bool, list[str]]]:
    """Parameters with one rate and one weight decay: the rate, whether it decays, their names."""
    decayed, found = set(artefact.optimizer.decayed), {}
    for name, rate in static_rates(artefact).parameters.items():
        found.setdefault((rate, name in decayed), []).append(name)
    return [(rate, decays, names) for (rate, decays), names in found.items()]


def pattern(names: list[str], start: str = "^") -> str:
    """A regular expression that `re.search` finds in exactly these names.

    Those that PEFT saves are found in its models as well: within `base_model.model`, and under the
    name of the adapter.

    Args:
        names: of the Hugging Face checkpoint.
        start: before the names, a regular expression.
    """
    bare = [re.escape(name.removeprefix(PEFT)) for name in names]
    bare = [re.sub(r"(lora_\w+)", r"\1(?:\\.default)?", name) for name in bare]
    return f"{start}(?:{re.escape(PEFT)})?(?:{'|'.join(bare)})$"
