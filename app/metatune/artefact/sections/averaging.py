"""The average of the parameters that is evaluated and kept: its decay over training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from metatune.artefact.curves import Interpolation, curves_at, floats, stretches
from metatune.artefact.json_schema import list_of, scheduled
from metatune.artefact.sections.section import ByKnot, Columns, Held, Plotted, Section, Written
from metatune.artefact.value_checks import ValueChecker

KEY: Final = "averaging"
UNIT: Final = "decay of the average of the parameters, per update"


@dataclass(frozen=True, eq=False)
class Averaging:
    """The decay β of an average of the parameters: after each update `β average + (1 - β) θ`.

    Where it is zero, the average is the parameters themselves.

    Attributes:
        knots: fractions of training; the first is 0, they increase, all are below 1.
        interpolation: `constant` holds a knot's decay until the next, `linear` joins them.
        decay: float64 [knots], below 1.
    """

    knots: tuple[float, ...]
    interpolation: Interpolation
    decay: np.ndarray

    def over(self, steps: Sequence[int], total: int) -> Columns:
        """The decay at some updates of `total`."""
        return curves_at(self, {"decay": self.decay}, steps, total)


def _written(averaging: Averaging, apart: bool) -> Written:
    return Written(
        {
            "unit": UNIT,
            "interpolation": averaging.interpolation,
            "knots": averaging.knots,
            "decay": averaging.decay.tolist(),
        }
    )


def _check(checker: ValueChecker, stated: Any, document: Mapping[str, Any]) -> None:
    if not checker.keys(KEY, stated, ("unit", "interpolation", "knots", "decay")):
        return
    count = checker.scheduled(KEY, stated, UNIT)
    if checker.curve(f"{KEY}.decay", stated["decay"], count) and max(stated["decay"]) >= 1:
        checker.fault(f"{KEY}.decay", max(stated["decay"]), "must be below 1")


def _read(stated: Mapping[str, Any], held: Held) -> Averaging:
    decay = np.asarray(stated["decay"], np.float64)
    return Averaging(floats(stated["knots"]), stated["interpolation"], decay)


AVERAGING: Final = Section(
    KEY,
    capabilities={"averaging": "averaging"},
    written=_written,
    check=_check,
    read=_read,
    schema=scheduled(
        UNIT,
        {"decay": list_of({"type": "number", "minimum": 0, "exclusiveMaximum": 1}, minItems=1)},
        description="An average of the parameters, which is what was evaluated: after each update "
        "it becomes decay * average + (1 - decay) * parameters. Before its first decay above zero "
        "it is the parameters themselves.",
    ),
    needs=lambda averaging, horizon: {"averaging": "an average of the parameters"},
    words=lambda averaging: [f"average of the parameters: its decay; {stretches(averaging)}"],
    facts=lambda averaging: [
        "**an average of the parameters** is what was evaluated: after each update it becomes "
        "`decay average + (1 - decay) parameters`, with the decay of `averaging` in tuned.json; "
        "where there is a metatune_averaging.py, it does so. Evaluate and keep the average"
    ],
    lossy=lambda averaging, lost, horizon: None if "averaging" in lost else averaging,
    curves=Averaging.over,
    tables=lambda averaging, steps, total: {KEY: averaging.over(steps, total)},
    views=lambda averaging, horizon: [
        ByKnot(
            "average of the parameters",
            "average from",
            averaging.knots,
            {"decay": averaging.decay},
            interpolation=averaging.interpolation,
        )
    ],
    plotted=Plotted("averaging", "Decay of the average of parameters", "decay"),
    modules={
        "optax": "averaging_optax.py",
        "torch": "averaging_torch.py",
        "hf_trainer": "averaging_torch.py",
    },
)
