"""Loss weights over training: of sequences by domain, or of tokens by class."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from metatune.artefact.curves import Interpolation, floats, rows_at, stretches
from metatune.artefact.json_schema import list_of, of_fields, ref, scheduled
from metatune.artefact.sections.mixture import by_domain, needs_of_domains, of_domains, table
from metatune.artefact.sections.section import Columns, Held, Plotted, Section, Written
from metatune.artefact.value_checks import SUM_TOLERANCE, ValueChecker

KEY: Final = "loss_weights"
UNIT: Final = "weight of a sequence's loss, averages one over domains"
CLASS_UNIT: Final = "weight of a token's loss, averages one over training tokens"


@dataclass(frozen=True, eq=False)
class LossWeights:
    """Weights of the loss of a sequence, by the domain that it comes from.

    Attributes:
        knots: fractions of training; the first is 0, they increase, all are below 1.
        interpolation: `constant` holds a knot's weights until the next, `linear` joins them.
        domains: names, in the order of the weights.
        weights: float64 weights, [knots, domains]; each row averages one.
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
        """The weight of each domain at some updates of `total`; they average one."""
        rows = rows_at(self, steps, total)
        mean = sum(rows.T) / len(self.domains)
        return {name: row / mean for name, row in zip(self.domains, rows.T, strict=True)}


@dataclass(frozen=True)
class Positions:
    """Classes of tokens by where in a sequence they stand.

    Attributes:
        sequence_length: tokens of a sequence.
        starts: the first position of each class, from 0; 1 is the first that is predicted.
    """

    sequence_length: int
    starts: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Classes of tokens by what token they are.

    Attributes:
        classes: the place of the class of each token id, uint8 [vocabulary].
    """

    classes: np.ndarray


@dataclass(frozen=True)
class Labels:
    """Classes of tokens by the label of their document, which the data says."""


@dataclass(frozen=True, eq=False)
class ClassWeights:
    """Weights of the loss of a token, by the class that it is of.

    The loss of a sequence is Σ w l / n over its n predicted tokens.

    Attributes:
        knots: fractions of training; the first is 0, they increase, all are below 1.
        interpolation: `constant` holds a knot's weights until the next, `linear` joins them.
        classes: names, in the order of the weights: text, prompt, completion, system or tool;
            position_1, ...; frequency_1, ...; or the labels of documents.
        shares: float64 shares of the training tokens, [classes]; they sum to one.
        weights: float64 weights, [knots, classes]; each row averages one over these shares.
        of: what puts a token into its class; None where the data says what part of a document it
            is of.
    """

    knots: tuple[float, ...]
    interpolation: Interpolation
    classes: tuple[str, ...]
    shares: np.ndarray
    weights: np.ndarray
    of: Positions | Vocabulary | Labels | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """What the columns of the weights are of."""
        return self.classes

    def over(self, steps: Sequence[int], total: int) -> Columns:
        """The weight of each class at some updates; they average one over the training tokens."""
        rows = rows_at(self, steps, total)
        mean = np.array([float(self.shares @ row) for row in rows])
        return {name: row / mean for name, row in zip(self.classes, rows.T, strict=True)}


def _written(weights: LossWeights | ClassWeights, apart: bool) -> Written:
    if isinstance(weights, LossWeights):
        return by_domain(weights, UNIT)
    of: dict[str, Any] = {}
    if isinstance(weights.of, Positions):
        length, starts = weights.of.sequence_length, weights.of.starts
        of = {"positions": {"sequence_length": length, "starts": starts}}
    elif isinstance(weights.of, Labels):
        of = {"labels": True}
    elif weights.of is not None:
        of = {"vocabulary": weights.of.classes.tolist()}
    return Written(
        {
            **of,
            "unit": CLASS_UNIT,
            "interpolation": weights.interpolation,
            "knots": weights.knots,
            "classes": weights.classes,
            "shares": weights.shares.tolist(),
            "weights": weights.weights.tolist(),
        }
    )


def _check(checker: ValueChecker, stated: Any, document: Mapping[str, Any]) -> None:
    if isinstance(stated, Mapping) and "classes" in stated:
        _check_classes(checker, stated)
        return
    for path, row in checker.rows(KEY, stated, UNIT, "domains"):
        mean = math.fsum(row) / len(row)
        if abs(mean - 1) > SUM_TOLERANCE:
            checker.fault(f"{path}, mean", mean, "loss weights must average 1 over the domains")


def _check_classes(checker: ValueChecker, stated: Mapping[str, Any]) -> None:
    own = ("shares", *(key for key in ("positions", "vocabulary", "labels") if key in stated))
    rows = list(checker.rows(KEY, stated, CLASS_UNIT, "classes", own))
    where, shares = f"{KEY}.shares", stated.get("shares")
    if not rows or not checker.curve(where, shares, len(stated["classes"]), "classes"):
        return
    checker.sums_to_one(where, stated["shares"])
    for path, row in rows:
        mean = math.fsum(s * w for s, w in zip(stated["shares"], row, strict=True))
        if abs(mean - 1) > SUM_TOLERANCE:
            problem = "loss weights must average 1 over the shares of the classes"
            checker.fault(f"{path}, mean", mean, problem)
    if len(own) > 2:
        problem = "classes are by one of these, not by several"
        checker.fault(KEY, list(own[1:]), problem)
    if stated.get("labels", True) is not True:
        checker.fault(f"{KEY}.labels", stated["labels"], "must be true, or not there")
    if "positions" in stated:
        _check_positions(checker, stated["positions"], len(stated["classes"]))
    if "vocabulary" in stated:
        _check_vocabulary(checker, stated["vocabulary"], len(stated["classes"]))


def _check_positions(checker: ValueChecker, stated: Any, count: int) -> None:
    path = f"{KEY}.positions"
    if not checker.keys(path, stated, ("sequence_length", "starts")):
        return
    checker.count(f"{path}.sequence_length", stated["sequence_length"])
    starts = stated["starts"]
    if not checker.is_a(f"{path}.starts", starts, list, "a list of positions"):
        return
    for index, start in enumerate(starts):
        checker.count(f"{path}.starts[{index}]", start)
    if checker.faults:
        return
    edges = [*starts, stated["sequence_length"]]
    increasing = all(a < b for a, b in zip(edges, edges[1:], strict=False))
    if len(starts) != count or starts[0] != 1 or not increasing:
        problem = f"must be {count} positions, from 1 up, increasing, below sequence_length"
        checker.fault(f"{path}.starts", starts, problem)


def _check_vocabulary(checker: ValueChecker, stated: Any, count: int) -> None:
    path = f"{KEY}.vocabulary"
    if not checker.is_a(path, stated, list, "a list of the class of each token"):
        return
    for token, place in enumerate(stated):
        if not isinstance(place, int) or isinstance(place, bool) or not 0 <= place < count:
            problem = f"must be the place of a class, 0 to {count - 1}"
            checker.fault(f"{path}[{token}]", place, problem)
            return


def _read(stated: Mapping[str, Any], held: Held) -> LossWeights | ClassWeights:
    if "classes" not in stated:
        return LossWeights(**of_domains(stated))
    return ClassWeights(
        floats(stated["knots"]),
        stated["interpolation"],
        tuple(stated["classes"]),
        np.asarray(stated["shares"], np.float64),
        np.asarray(stated["weights"], np.float64),
        next(_classes_of(stated), None),
    )


def _classes_of(stated: Mapping[str, Any]) -> Iterator[Positions | Vocabulary | Labels]:
    if "labels" in stated:
        yield Labels()
    if (found := stated.get("positions")) is not None:
        yield Positions(found["sequence_length"], tuple(found["starts"]))
    if (found := stated.get("vocabulary")) is not None:
        yield Vocabulary(np.asarray(found, np.uint8))


def _needs(weights: LossWeights | ClassWeights, horizon: int) -> dict[str, str]:
    if isinstance(weights, ClassWeights):
        return {"class_weights": f"loss weights of {len(weights.classes)} classes of tokens"}
    return needs_of_domains(KEY, "loss weights", weights)


CLASSES: Final = scheduled(
    CLASS_UNIT,
    {
        "classes": list_of({"type": "string", "minLength": 1}, uniqueItems=True, minItems=1),
        "shares": ref(
            "curve",
            description="Of the classes among the training tokens; each row of weights averages "
            "one over them.",
        ),
        "weights": list_of(ref("curve"), minItems=1),
    },
    {
        "positions": of_fields(
            {
                "sequence_length": {"type": "integer", "minimum": 2},
                "starts": list_of(
                    {"type": "integer", "minimum": 1},
                    prefixItems=[{"const": 1}],
                    uniqueItems=True,
                    minItems=1,
                ),
            },
            description="Classes are stretches of a sequence: the position that each starts at, "
            "from 0; 1 is the first that is predicted.",
        ),
        "labels": {
            "description": "Classes are the labels of documents, which the data says.",
            "const": True,
        },
        "vocabulary": list_of(
            {"type": "integer", "minimum": 0, "maximum": 255},
            minItems=1,
            description="Classes are sets of tokens: the place in classes of each token id.",
        ),
    },
    description="A row for each knot, a column for each class of tokens: parts of a document "
    "(text, prompt, completion, system, tool), which the data says, or what positions, vocabulary "
    "or labels say. With weights w of the classes of its n predicted tokens, the loss of a "
    "sequence is the sum of w times the token's loss, over n.",
)

LOSS_WEIGHTS: Final = Section(
    KEY,
    capabilities={
        "loss_weights": "loss weights",
        "moving_loss_weights": "loss weights over time",
        "class_weights": "class weights",
    },
    written=_written,
    check=_check,
    read=_read,
    schema={
        "oneOf": [
            {"type": "null"},
            ref("domains", properties={"unit": {"const": UNIT}}),
            ref("classes"),
        ]
    },
    needs=_needs,
    words=lambda held: [f"loss weights: {', '.join(held.columns)}; {stretches(held)}"],
    facts=lambda held: [f"loss weights of {', '.join(held.columns)} at {len(held.knots):,} knots"],
    definitions={"classes": CLASSES},
    required=True,
    curves=lambda weights, steps, total: weights.over(steps, total),
    tables=lambda weights, steps, total: {KEY: weights.over(steps, total)},
    views=lambda weights, horizon: [
        table("loss weights", "loss weight from", weights, "{:.2f}".format)
    ],
    plotted=Plotted("loss_weight", "Weights of the loss", "weight of the loss"),
)
