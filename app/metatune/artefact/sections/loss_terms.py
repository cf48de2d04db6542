"""Terms of the training loss beside that of the next token, over training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from metatune.artefact.curves import Interpolation, arrays, curves_at, floats, lists, stretches
from metatune.artefact.json_schema import list_of, ref, scheduled
from metatune.artefact.sections.section import ByKnot, Columns, Held, Plotted, Section, Written
from metatune.artefact.value_checks import ValueChecker

KEY: Final = "loss_terms"
UNIT: Final = "coefficient in a token's loss, the next token's term as the unit"
TERMS: Final = ("z_loss", "label_smoothing", "auxiliary", "router_balance")


@dataclass(frozen=True, eq=False)
class LossTerms:
    """Terms of the training loss beside that of the next token, tuned or as the recipe has them.

    The loss of a token with logits z is `(1 - ε) (-log p_target) + ε mean_v (-log p_v) + c (log
    Σ_v exp z_v)²`, with `label_smoothing` ε and `z_loss` c. With `auxiliary` there is a head beside
    the model: that many times the cross entropy of the same token is added, of the logits that the
    model's own unembedding makes of `h + W h`, h the final features two tokens before it, in the
    same document. W is the parameter `auxiliary_head.weight`, trained from zero.
    With `router_balance` that many times `E Σ_e f_e P_e` is added to the loss of a batch: over the
    tokens of all layers together, f_e is the share that chose expert e of E, P_e its mean
    probability.

    Attributes:
        knots: fractions of training; the first is 0, they increase, all are below 1.
        interpolation: `constant` holds a knot's values until the next, `linear` joins them.
        values: float64 coefficients [knots], by the name of the term.
        tuned: which of them were; the others are as the recipe has them.
    """

    knots: tuple[float, ...]
    interpolation: Interpolation
    values: Mapping[str, np.ndarray]
    tuned: tuple[str, ...]

    def over(self, steps: Sequence[int], total: int) -> Columns:
        """The coefficient of each term at some updates of `total`."""
        return curves_at(self, self.values, steps, total)


def _written(terms: LossTerms, apart: bool) -> Written:
    return Written(
        {
            "unit": UNIT,
            "interpolation": terms.interpolation,
            "knots": terms.knots,
            "values": lists(terms.values),
            "tuned": terms.tuned,
        }
    )


def _check(checker: ValueChecker, stated: Any, document: Mapping[str, Any]) -> None:
    if not checker.keys(KEY, stated, ("unit", "interpolation", "knots", "values", "tuned")):
        return
    count = checker.scheduled(KEY, stated, UNIT)
    path, values = f"{KEY}.values", stated["values"]
    if not checker.is_a(path, values, Mapping, "an object"):
        return
    if not values:
        checker.fault(path, {}, f"must hold one of {', '.join(TERMS)}")
    for name, curve in values.items():
        if name not in TERMS:
            checker.fault(path, name, f"must be one of {', '.join(TERMS)}")
        sound = checker.curve(f"{path}.{name}", curve, count)
        if sound and name == "label_smoothing" and max(curve) > 1:
            checker.fault(f"{path}.{name}", max(curve), "must be 1 or below")
    for name in checker.names(f"{KEY}.tuned", stated["tuned"]):
        if name not in values:
            checker.fault(f"{KEY}.tuned", name, "must be a name of loss_terms.values")


def _read(stated: Mapping[str, Any], held: Held) -> LossTerms:
    return LossTerms(
        floats(stated["knots"]),
        stated["interpolation"],
        arrays(stated["values"]),
        tuple(stated["tuned"]),
    )


def _needs(terms: LossTerms, horizon: int) -> dict[str, str]:
    needs = {}
    if terms.tuned:
        needs["loss_terms"] = f"tuned terms of the loss: {', '.join(terms.tuned)}"
    # A parameter that was trained, and has a rate, whether or not its weight was tuned.
    if "auxiliary" in terms.values:
        needs["auxiliary_head"] = "an auxiliary head, of the token two ahead"
    if "router_balance" in terms.values:
        needs["router_balance"] = "a term of the loss on how evenly experts are used"
    return needs


def _words(terms: LossTerms) -> list[str]:
    if not terms.tuned:
        return []
    return [f"terms of the loss: {', '.join(terms.tuned)}; {stretches(terms)}"]


def _facts(terms: LossTerms) -> list[str]:
    said = (
        f"{name} {curve[0]:.4g}{' at first' if name in terms.tuned else ''}"
        for name, curve in terms.values.items()
    )
    return [f"in the loss, beside the next token's: {', '.join(said)}"]


LOSS_TERMS: Final = Section(
    KEY,
    capabilities={
        "loss_terms": "loss terms",
        "auxiliary_head": "auxiliary head",
        "router_balance": "balance of experts",
    },
    written=_written,
    check=_check,
    read=_read,
    schema=scheduled(
        UNIT,
        {
            "values": {
                "type": "object",
                "minProperties": 1,
                "additionalProperties": False,
                "properties": {
                    "z_loss": ref("curve"),
                    "label_smoothing": list_of(
                        {"type": "number", "minimum": 0, "maximum": 1}, minItems=1
                    ),
                    "auxiliary": ref("curve"),
                    "router_balance": ref("curve"),
                },
            },
            "tuned": list_of({"enum": list(TERMS)}, uniqueItems=True),
        },
        description="What the loss has beside the next token's term, whose weight is the unit: the "
        "loss of a token with logits z is (1 - label_smoothing) (-log p_target) + label_smoothing "
        "mean_v (-log p_v) + z_loss (log sum_v exp z_v)^2. With auxiliary, that many times the "
        "cross entropy of the same token is added, of the logits that the model's own unembedding "
        "makes of h + W h: h are the final features two tokens before it, in the same document, W "
        "is the parameter auxiliary_head.weight, trained from zero. With router_balance, "
        "that many times E sum_e f_e P_e is added to the loss of a batch: over the tokens of all "
        "layers together, f_e is the share that chose expert e of E, P_e its mean probability. "
        "Those in tuned were tuned.",
    ),
    needs=_needs,
    words=_words,
    facts=_facts,
    curves=LossTerms.over,
    tables=lambda terms, steps, total: {KEY: terms.over(steps, total)},
    views=lambda terms, horizon: [
        ByKnot(
            "terms of the loss",
            "in the loss from",
            terms.knots,
            terms.values,
            interpolation=terms.interpolation,
        )
    ],
    plotted=Plotted("loss_term", "Terms of the loss", "coefficient"),
)
