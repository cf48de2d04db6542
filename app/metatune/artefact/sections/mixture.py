"""The mixture: shares of the sequences of a batch that each domain gives, over training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from metatune.artefact.curves import Interpolation, floats, rows_at, stretches
from metatune.artefact.json_schema import or_null, ref
from metatune.artefact.sections.section import ByKnot, Columns, Held, Plotted, Section, Written
from metatune.artefact.value_checks import ValueChecker

KEY: Final = "mixture"
UNIT: Final = "share of sequences"


@dataclass(frozen=True, eq=False)
class Mixture:
    """Shares of the sequences of a batch that each domain gives.

    Attributes:
        knots: fractions of training; the first is 0, they increase, all are below 1.
        interpolation: `constant` holds a knot's shares until the next, `linear` joins them.
        domains: names, in the order of the shares.
        weights: float64 shares, [knots, domains]; each row sums to one.
    """

    knots: tuple[float, ...]
    interpolation: Interpolation
    domains: tuple[str, ...]
    weights: np.ndarray

    @property
    def columns(self) -> tuple[str, ...]:
        """What the columns of the weights are of."""
        return self.domains

    def over(self, steps: Sequence[int], total: int) -> Columns:
        """The share of each domain at some updates of `total`; they sum to one."""
        rows = rows_at(self, steps, total)
        whole = sum(rows.T)
        return {name: row / whole for name, row in zip(self.domains, rows.T, strict=True)}


def by_domain(schedule: Any, unit: str) -> Written:
    """A schedule of domains as it is written."""
    return Written(
        {
            "unit": unit,
            "interpolation": schedule.interpolation,
            "knots": schedule.knots,
            "domains": schedule.domains,
            "weights": schedule.weights.tolist(),
        }
    )


def of_domains(stated: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a schedule of domains."""
    return {
        "knots": floats(stated["knots"]),
        "interpolation": stated["interpolation"],
        "domains": tuple(stated["domains"]),
        "weights": np.asarray(stated["weights"], np.float64),
    }


def needs_of_domains(key: str, words: str, schedule: Any) -> dict[str, str]:
    """What a schedule of domains asks for."""
    needs = {key: f"{words} of {len(schedule.domains)} domains"}
    if np.any(schedule.weights != schedule.weights[0]):
        needs[f"moving_{key}"] = f"{words} that change at {len(schedule.knots)} knots"
    return needs


def table(title: str, head: str, schedule: Any, shown: Any) -> ByKnot:
    """The columns of a schedule at its knots."""
    curves = dict(zip(schedule.columns, schedule.weights.T, strict=True))
    own = schedule.interpolation
    return ByKnot(title, head, schedule.knots, curves, shown, ".3f", "zero", own)


def _check(checker: ValueChecker, stated: Any, document: Mapping[str, Any]) -> None:
    for path, row in checker.rows(KEY, stated, UNIT, "domains"):
        checker.sums_to_one(path, row)


def _read(stated: Mapping[str, Any], held: Held) -> Mixture:
    return Mixture(**of_domains(stated))


MIXTURE: Final = Section(
    KEY,
    capabilities={"mixture": "mixture", "moving_mixture": "mixture over time"},
    written=lambda mixture, apart: by_domain(mixture, UNIT),
    check=_check,
    read=_read,
    schema=or_null(ref("domains", properties={"unit": {"const": UNIT}})),
    needs=lambda mixture, horizon: needs_of_domains(KEY, "shares", mixture),
    words=lambda mixture: [f"mixture: {', '.join(mixture.domains)}; {stretches(mixture)}"],
    facts=lambda mixture: [
        f"shares of {', '.join(mixture.domains)} at {len(mixture.knots):,} knots"
    ],
    required=True,
    curves=Mixture.over,
    tables=lambda mixture, steps, total: {KEY: mixture.over(steps, total)},
    views=lambda mixture, horizon: [
        table(KEY, "share from", mixture, lambda share: f"{share:.1%}")
    ],
    plotted=Plotted("mixture", "Mixture, share of sequences", "share of sequences", "share"),
)
