"""Absolute learning rates of every parameter, and what was tuned of them, in an artefact."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import numpy as np

from metatune.artefact.curves import Schedule, arrays, counted, floats, lists
from metatune.artefact.errors import ArtefactError
from metatune.artefact.json_schema import by_name, of_fields, or_null, ref, scheduled
from metatune.artefact.sections import elements as within
from metatune.artefact.sections.elements import sound
from metatune.artefact.sections.rates import (
    KEY,
    LearningRates,
    Multipliers,
    base_curve,
    curves,
    told_apart,
)
from metatune.artefact.sections.section import (
    ByKnot,
    Columns,
    Held,
    OnLogScale,
    Plotted,
    Section,
    Written,
)
from metatune.artefact.value_checks import NOT_NEGATIVE, ValueChecker
from metatune.recipe.faults import Fault

UNIT: Final = "absolute, per update"
MULTIPLIER_UNIT: Final = "factor of the base schedule"

TABLE: Final = KEY
"""The tensor of the rates of all parameters; others carry the name of their parameter."""

READABLE_NUMBERS: Final = 200_000
"""Curves of more numbers than this go to tuned.safetensors."""

CURE: Final = "an artefact can't be written with it"


def parameter_names(document: Mapping[str, Any]) -> list[str] | None:
    """The names of all trained parameters in a tuned.json; None where they can't be known."""
    rates = document.get(KEY)
    parameters = rates.get("parameters") if isinstance(rates, Mapping) else None
    if not isinstance(parameters, Mapping):
        return None
    names = parameters.get("names") if _elsewhere(parameters) else [*parameters]
    return names if isinstance(names, list) else None


def _elsewhere(parameters: Any) -> bool:
    """Whether the curves of all parameters stand in a tensor outside the document."""
    return isinstance(parameters, Mapping) and isinstance(parameters.get("tensor"), str)


def _written(rates: LearningRates, apart: bool) -> Written:
    document = {"unit": UNIT, "interpolation": rates.interpolation, "knots": rates.knots}
    tensors: dict[str, np.ndarray] = {}
    if apart and len(rates.parameters) * len(rates.knots) > READABLE_NUMBERS:
        tensors[TABLE] = _table(rates)
        document["parameters"] = {"names": list(rates.parameters), "tensor": TABLE}
    else:
        document["parameters"] = lists(rates.parameters)
    document["multipliers"] = None
    if (tuned := rates.multipliers) is not None:
        document["multipliers"] = {
            "unit": MULTIPLIER_UNIT,
            "interpolation": tuned.interpolation,
            "knots": tuned.knots,
            "groups": tuned.groups,
            "members": tuned.members,
        }
    if (own := rates.elements) is not None:
        tensors |= own.parameters
        document["elements"] = within.document(own)
    return Written(document, tensors)


def _table(rates: LearningRates) -> np.ndarray:
    """The rates of all parameters, float64 [parameters, knots]."""
    count = len(rates.knots)
    problem = f"must be [{count}], for [knots]"
    faults = [
        Fault(f"{KEY}.parameters.{name}, shape", list(curve.shape), problem, CURE)
        for name, curve in rates.parameters.items()
        if curve.shape != (count,)
    ]
    if faults:
        raise ArtefactError("artefact", faults)
    return np.stack(list(rates.parameters.values())).astype(np.float64)


def _check(checker: ValueChecker, stated: Any, document: Mapping[str, Any]) -> None:
    keys = ("unit", "interpolation", "knots", "parameters", "multipliers")
    if not checker.keys(KEY, stated, keys, optional=("elements",)):
        return
    path, parameters = f"{KEY}.parameters", stated["parameters"]
    count = checker.scheduled(KEY, stated, UNIT)
    if _elsewhere(parameters):
        if not checker.keys(path, parameters, ("names", "tensor")):
            return
        checker.equal(f"{path}.tensor", parameters["tensor"], TABLE)
        names = checker.names(f"{path}.names", parameters["names"])
    else:
        if not checker.is_a(path, parameters, Mapping, "an object"):
            return
        names = list(parameters)
        for name, curve in parameters.items():
            checker.curve(f"{path}.{name}", curve, count)
    if not names:
        checker.fault(path, [], "must hold every parameter of the model")
    if stated["multipliers"] is not None:
        _check_multipliers(checker, stated["multipliers"], names)
    if "elements" in stated:
        within.check(checker, f"{KEY}.elements", stated["elements"], names)


def _check_multipliers(checker: ValueChecker, stated: Any, names: Sequence[str]) -> None:
    path, keys = f"{KEY}.multipliers", ("unit", "knots", "groups", "members")
    if not checker.keys(path, stated, keys, optional=("interpolation",)):
        return
    count = checker.scheduled(path, {"interpolation": "constant", **stated}, MULTIPLIER_UNIT)
    groups, members = stated["groups"], stated["members"]
    if not checker.is_a(f"{path}.groups", groups, Mapping, "an object"):
        return
    for group, curve in groups.items():
        checker.curve(f"{path}.groups.{group}", curve, count)
    if checker.keys(f"{path}.members", members, tuple(groups)):
        for group, found in members.items():
            checker.known(f"{path}.members.{group}", found, names)


def _apart(stated: Any) -> bool:
    if not isinstance(stated, Mapping):
        return False
    return "elements" in stated or _elsewhere(stated.get("parameters"))


def _outside(stated: Mapping[str, Any]) -> list[str]:
    own = stated.get("elements")
    return [*([TABLE] if _elsewhere(stated["parameters"]) else []), *(own["shapes"] if own else ())]


def _check_tensors(checker: ValueChecker, stated: Any, tensors: Mapping[str, np.ndarray]) -> None:
    if _elsewhere(stated["parameters"]):
        names, rates = stated["parameters"]["names"], tensors[TABLE]
        path, expected = f"{KEY}.parameters", [len(names), len(stated["knots"])]
        if sound(checker, path, rates, "float64", expected, "[parameters, knots]"):
            bad = ~(np.isfinite(rates) & (rates >= 0))
            for row in np.flatnonzero(bad.any(axis=1)).tolist():
                knot = int(bad[row].argmax())
                found = float(rates[row, knot])
                checker.fault(f"{path}.{names[row]}[{knot}]", found, NOT_NEGATIVE)
    if (own := stated.get("elements")) is not None:
        within.check_tensors(checker, f"{KEY}.elements", own, tensors)


def _read(stated: Mapping[str, Any], held: Held) -> LearningRates:
    tuned, own, parameters = stated["multipliers"], stated.get("elements"), stated["parameters"]
    if _elsewhere(parameters):
        rates = dict(zip(parameters["names"], held.tensors[TABLE], strict=True))
    else:
        rates = arrays(parameters)
    return LearningRates(
        floats(stated["knots"]),
        stated["interpolation"],
        rates,
        tuned
        and Multipliers(
            floats(tuned["knots"]),
            {group: floats(curve) for group, curve in tuned["groups"].items()},
            {group: tuple(names) for group, names in tuned["members"].items()},
            tuned.get("interpolation", "constant"),
        ),
        own and within.read(own, held.tensors),
    )


def _needs(rates: LearningRates, horizon: int) -> dict[str, str]:
    needs = {}
    if rates.elements is not None:
        needs["elements"] = (
            f"{_within(rates):,} learning rates within parameters (else their means)"
        )
    # A base schedule that was not tuned asks for nothing: it is a matter of the trainer.
    if (tuned := rates.averaged(horizon).multipliers) is not None:
        factors = np.asarray(list(tuned.groups.values()))
        if np.any(factors != factors[0]):
            needs["rates"] = f"learning rates of {len(factors)} groups of parameters"
        if np.any(factors != factors[:, :1]):
            needs["curves"] = f"rates that move over {len(tuned.knots)} windows"
    return needs


def _within(rates: LearningRates) -> int:
    """How many rates there are within parameters."""
    held = rates.elements.parameters if rates.elements else {}
    return sum(factors[0].size for factors in held.values())


def _words(rates: LearningRates) -> list[str]:
    if (own := rates.elements) is not None:
        return [
            f"learning rates: {counted(_within(rates), 'multiplier')} within "
            f"{counted(len(own.parameters), 'parameter')}, "
            f"{_stretches(own)}; quantiles over each parameter are shown"
        ]
    if (tuned := rates.multipliers) is None:
        return [f"learning rates: the recipe's, for {len(rates.parameters)} parameters"]
    return [
        f"learning rates: {counted(len(tuned.groups), 'group')} of parameters, "
        f"a multiplier of the base schedule {_stretches(tuned)}"
    ]


def _stretches(schedule: Schedule) -> str:
    count = len(schedule.knots)
    if schedule.interpolation == "linear":
        return f"on lines between {counted(count, 'knot')}"
    return f"in {counted(count, 'window')}"


def _facts(rates: LearningRates) -> list[str]:
    count, knots = len(rates.parameters), len(rates.knots)
    lines = [f"learning rates of {count:,} parameters at {knots:,} knots"]
    if rates.elements is not None:
        lines.append(
            "their factors within each parameter are in tuned.safetensors, which stays beside "
            "tuned.json"
        )
    return lines


def _views(rates: LearningRates, horizon: int) -> list[OnLogScale]:
    shown_rates = rates.summarised(horizon)
    tuned, factors = shown_rates.multipliers, None
    if tuned is not None:
        by_curve = {
            label: tuned.groups[group]
            for group, names in tuned.members.items()
            for label in told_apart(group, names, shown_rates)
        }
        head = f"multiplier {'from' if tuned.interpolation == 'constant' else 'at'}"
        shown = "{:.2f}".format
        own = tuned.interpolation
        factors = ByKnot(
            "multipliers", head, tuned.knots, by_curve, shown, ".3f", interpolation=own
        )
    title = "learning rates per update and multipliers, log scale"
    return [OnLogScale(title, lambda steps: curves(rates, steps, horizon), factors)]


def _tables(rates: LearningRates, steps: Sequence[int], total: int) -> dict[str, Columns]:
    return {KEY: dict(zip(rates.parameters, rates.over(steps, total).T, strict=True))}


def _lossy(rates: LearningRates, lost: Collection[str], horizon: int) -> LearningRates:
    return rates.averaged(horizon) if "elements" in lost else rates


MULTIPLIERS: Final = of_fields(
    {
        "unit": {"const": MULTIPLIER_UNIT},
        "knots": ref("knots"),
        "groups": by_name(ref("curve")),
        "members": by_name(ref("names")),
    },
    {"interpolation": ref("interpolation")},
)

IN_TENSOR: Final = {"properties": {"tensor": {"type": "string"}}, "required": ["tensor"]}
OUTSIDE: Final = {"anyOf": [{"required": ["elements"]}, {"properties": {"parameters": IN_TENSOR}}]}

LEARNING_RATES: Final = Section(
    KEY,
    capabilities={"rates": "rates", "curves": "curves", "elements": "rates in tensors"},
    written=_written,
    check=_check,
    read=_read,
    schema=scheduled(
        UNIT,
        {
            "parameters": {
                "description": "A rate for each knot, by checkpoint name; or the names of the rows "
                "of a float64 tensor [names, knots] in tensors.file.",
                "oneOf": [
                    by_name(ref("curve"), minProperties=1),
                    of_fields({"names": ref("names", minItems=1), "tensor": {"const": TABLE}}),
                ],
            },
            "multipliers": or_null(
                ref("multipliers"),
                description="What was tuned: factors of the base schedule, by group.",
            ),
        },
        {"elements": within.SCHEMA},
    ),
    needs=_needs,
    words=_words,
    facts=_facts,
    definitions={"multipliers": MULTIPLIERS},
    required=True,
    apart=_apart,
    outside=_outside,
    outside_if=OUTSIDE,
    check_tensors=_check_tensors,
    lossy=_lossy,
    curves=curves,
    base=base_curve,
    tables=_tables,
    views=_views,
    plotted=Plotted("learning_rate", "Learning rate per update", "rate per update", "log"),
    alone=("learning_rates.elements", "rates within parameters don't stand in a tuned.json"),
)
