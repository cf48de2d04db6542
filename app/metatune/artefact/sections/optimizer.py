"""The optimizer that the rates were tuned for, and what was tuned of its numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from metatune.artefact.curves import Interpolation, arrays, curves_at, floats, lists, stretches
from metatune.artefact.json_schema import (
    BOOLEAN,
    COUNT,
    NOT_NEGATIVE,
    POSITIVE,
    by_name,
    list_of,
    of_fields,
    or_null,
    ref,
    scheduled,
)
from metatune.artefact.sections.learning_rates import parameter_names
from metatune.artefact.sections.section import ByKnot, Columns, Held, Plotted, Section, Written
from metatune.artefact.value_checks import NOT_NEGATIVE as NOT_BELOW_0
from metatune.artefact.value_checks import ValueChecker, real
from metatune.recipe.faults import ABSENT

KEY: Final = "optimizer"

ADAM: Final = ("b1", "b2", "eps", "eps_root")
MOMENTUM: Final = ("momentum", "nesterov")
BASES: Final = ("precondition_frequency", "max_precond_dim")
FACTORED: Final = ("scale_by_parameter", "min_dim_size_to_factor", "eps")
SETTINGS: Final = {
    kind: ("kind", "weight_decay", *own, "clip_norm")
    for kind, own in {
        "adamw": ADAM,
        "sgd": MOMENTUM,
        "lion": ("b1", "b2"),
        "muon": (*MOMENTUM, "newton_schulz_steps", *ADAM),
        "adafactor": ("decay_rate", "clipping_threshold", *FACTORED),
        "schedule_free_adamw": ("b1", "b2", "weight_lr_power", "eps", "eps_root"),
        "adopt": ("b1", "b2", "eps"),
        "adamh": ADAM,
        "muonh": (*MOMENTUM, "newton_schulz_steps", *ADAM),
        "soap": (*ADAM, *BASES),
        "normuon": (*MOMENTUM, "newton_schulz_steps", *ADAM),
    }.items()
}
"""The settings of an inner optimizer that an artefact holds, by its kind."""

GROUPS: Final = "groups"
"""The kind of several optimizers side by side; `groups` in its settings are theirs."""

TREATED: Final = {
    "muon": ("orthogonal", "inputs_first"),
    "adamh": ("turned",),
    "muonh": ("orthogonal", "inputs_first", "turned"),
    "normuon": ("orthogonal", "inputs_first"),
}
"""What of its parameters an optimizer treats in a way of its own, by its kind in a group.

`orthogonal` are matrices whose momentum is made so, `inputs_first` those of them that are
[in, out], `turned` those that keep their norm.
"""

OF_GROUP: Final = {
    kind: (
        "match",
        *(key for key in keys if key != "clip_norm"),
        "parameters",
        *TREATED.get(kind, ()),
    )
    for kind, keys in SETTINGS.items()
    if kind != "schedule_free_adamw"
}
"""What an artefact holds of a group, by the kind of its optimizer."""

SWITCHES: Final = ("nesterov", "scale_by_parameter")
LIMITS: Final = ("clip_norm", "clipping_threshold")
COUNTS: Final = ("newton_schulz_steps", "min_dim_size_to_factor", *BASES)


@dataclass(frozen=True, eq=False)
class OptimizerSchedules:
    """What was tuned of the numbers of the optimizer; it moves over training.

    Attributes:
        knots: fractions of training; the first is 0, they increase, all are below 1.
        interpolation: `constant` holds a knot's values until the next, `linear` joins them.
        values: float64 [knots], by the name of a setting other than weight decay.
        weight_decay: float64 [knots], by the checkpoint name of each parameter that decays; None
            where it wasn't tuned.
    """

    knots: tuple[float, ...]
    interpolation: Interpolation
    values: Mapping[str, np.ndarray]
    weight_decay: Mapping[str, np.ndarray] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """What was tuned."""
        return (*(("weight_decay",) if self.weight_decay else ()), *self.values)

    @property
    def curves(self) -> dict[str, np.ndarray]:
        """Every curve once, [knots], by what it is of: parameters alike go by the first's name."""
        alike: dict[tuple[float, ...], list[str]] = {}
        for name, curve in (self.weight_decay or {}).items():
            alike.setdefault(tuple(curve.tolist()), []).append(name)
        decay = {
            f"weight_decay {names[0]}" + (f" and {len(names) - 1} more" if names[1:] else ""): curve
            for curve, names in alike.items()
        }
        if len(decay) == 1:
            decay = {"weight_decay": next(iter(alike))}
        return {label: np.asarray(curve) for label, curve in decay.items()} | dict(self.values)


@dataclass(frozen=True)
class Optimizer:
    """The optimizer that the rates were tuned for.

    Attributes:
        settings: exactly the `SETTINGS` of its kind, plain numbers; of what was tuned those that
            it started from. Of several side by side `kind`, `clip_norm`, and a list of `groups`,
            each with exactly the `OF_GROUP` of its kind.
        decayed: checkpoint names of the parameters that weight decay applies to.
        schedules: what was tuned of the settings; None where nothing was.
    """

    settings: Mapping[str, Any]
    decayed: tuple[str, ...]
    schedules: OptimizerSchedules | None = None

    @property
    def numbers(self) -> dict[str, Any]:
        """The settings by name, those of groups as `groups[0].b1`; without lists of parameters."""
        found = {key: value for key, value in self.settings.items() if key != GROUPS}
        for place, group in enumerate(self.settings.get(GROUPS, ())):
            own = {key: group[key] for key in ("match", *SETTINGS[group["kind"]]) if key in group}
            found |= {f"{GROUPS}[{place}].{key}": value for key, value in own.items()}
        return found

    @property
    def kinds(self) -> tuple[str, ...]:
        """That of the optimizer, or of each group's."""
        groups = self.settings.get(GROUPS)
        return tuple(each["kind"] for each in groups) if groups else (self.settings["kind"],)

    def place(self, name: str) -> int:
        """The number of the group that a parameter is of; 0 of one optimizer."""
        groups = self.settings.get(GROUPS, ())
        return next((at for at, each in enumerate(groups) if name in each["parameters"]), 0)

    def tables(self, steps: Sequence[int], total: int) -> dict[str, Columns]:
        """What was tuned at some updates: its `weight_decay` by parameter, and the others."""
        if (tuned := self.schedules) is None:
            return {}
        both = {KEY: tuned.values, "weight_decay": tuned.weight_decay}
        return {name: curves_at(tuned, own, steps, total) for name, own in both.items() if own}

    def curves(self, steps: Sequence[int], total: int) -> Columns:
        """What was tuned at some updates, each curve once."""
        tuned = self.schedules
        return {} if tuned is None else curves_at(tuned, tuned.curves, steps, total)


def _written(optimizer: Optimizer, apart: bool) -> Written:
    document = {**optimizer.settings, "decayed": optimizer.decayed}
    if (schedules := optimizer.schedules) is None:
        return Written(document)
    decay = schedules.weight_decay
    tuned = {
        "interpolation": schedules.interpolation,
        "knots": schedules.knots,
        "values": lists(schedules.values),
        "weight_decay": None if decay is None else lists(decay),
    }
    return Written({**document, "schedules": tuned})


def _check(checker: ValueChecker, stated: Any, document: Mapping[str, Any]) -> None:
    if not checker.is_a(KEY, stated, Mapping, "an object"):
        return
    kind = stated.get("kind")
    if kind == GROUPS:
        _check_groups(checker, stated, document)
    elif kind not in list(SETTINGS):  # a list: what was received may not be hashable
        checker.fault(f"{KEY}.kind", kind, f"must be one of {', '.join(SETTINGS)}")
    elif checker.keys(KEY, stated, (*SETTINGS[kind], "decayed"), ("schedules",)):
        _check_numbers(checker, KEY, SETTINGS[kind], stated)
        checker.known(f"{KEY}.decayed", stated["decayed"], parameter_names(document))
        if "schedules" in stated:
            _check_schedules(checker, stated["schedules"], SETTINGS[kind], stated["decayed"])


def _check_numbers(
    checker: ValueChecker, where: str, keys: Sequence[str], stated: Mapping[str, Any]
) -> None:
    for key in keys:
        path, value = f"{where}.{key}", stated[key]
        if key in SWITCHES:
            checker.is_a(path, value, bool, "true or false")
        elif key in LIMITS:
            if value is not None and not (real(value) and value > 0):
                checker.fault(path, value, "must be a number above 0, or null")
        elif key != "kind" and not (real(value) and value >= 0):
            checker.fault(path, value, NOT_BELOW_0)


def _check_groups(
    checker: ValueChecker, stated: Mapping[str, Any], document: Mapping[str, Any]
) -> None:
    """Each has what its kind has, and every parameter is of one of them."""
    if not checker.keys(KEY, stated, ("kind", "clip_norm", GROUPS, "decayed"), ("schedules",)):
        return
    _check_numbers(checker, KEY, ("clip_norm",), stated)
    if not checker.is_a(f"{KEY}.{GROUPS}", stated[GROUPS], list, "a list"):
        return
    names, taken, numbers = parameter_names(document), [], ["clip_norm"]
    for place, group in enumerate(stated[GROUPS]):
        path = f"{KEY}.{GROUPS}[{place}]"
        if not checker.is_a(path, group, Mapping, "an object"):
            return
        kind = group.get("kind")
        if kind not in list(OF_GROUP):
            checker.fault(f"{path}.kind", kind, f"must be one of {', '.join(OF_GROUP)}")
            return
        if not checker.keys(path, group, OF_GROUP[kind]):
            return
        own = [key for key in SETTINGS[kind] if key in OF_GROUP[kind]]
        _check_numbers(checker, path, own, group)
        if group["match"] is not None:
            checker.is_a(f"{path}.match", group["match"], str, "text, or null")
        faults = len(checker.faults)
        for key in ("parameters", *TREATED.get(kind, ())):
            checker.known(f"{path}.{key}", group[key], names)
        if len(checker.faults) > faults:
            return
        for key in TREATED.get(kind, ()):
            if strange := [name for name in group[key] if name not in group["parameters"]]:
                checker.fault(f"{path}.{key}", strange[0], f"must be one of {path}.parameters")
        taken += group["parameters"]
        numbers += [
            f"{GROUPS}[{place}].{key}" for key in own if key not in ("kind", "weight_decay")
        ]
    known = set(taken) if names is None else set(names)
    if len(set(taken)) < len(taken) or set(taken) != known:
        problem = "must have each parameter of learning_rates.parameters in one of them"
        checker.fault(f"{KEY}.{GROUPS}", len(taken), problem)
    checker.known(f"{KEY}.decayed", stated["decayed"], names)
    if "schedules" in stated:
        _check_schedules(checker, stated["schedules"], numbers, stated["decayed"])


def _check_schedules(
    checker: ValueChecker, stated: Any, settings: Sequence[str], decayed: Sequence[str]
) -> None:
    path = f"{KEY}.schedules"
    if not checker.keys(path, stated, ("interpolation", "knots", "values", "weight_decay")):
        return
    count = checker.scheduled(path, stated)
    known = [key for key in settings if key not in ("kind", "weight_decay")]
    for field, allowed, whole in (("values", known, False), ("weight_decay", decayed, True)):
        curves = stated[field]
        if not isinstance(curves, Mapping):
            if not (whole and curves is None):
                checker.fault(f"{path}.{field}", curves, "must be an object")
            continue
        for name, curve in curves.items():
            if name not in allowed:
                checker.fault(f"{path}.{field}", name, f"must be one of {', '.join(allowed)}")
            checker.curve(f"{path}.{field}.{name}", curve, count)
        if whole and (missing := [name for name in allowed if name not in curves]):
            problem = "must have a curve for each of optimizer.decayed"
            checker.fault(f"{path}.{field}.{missing[0]}", ABSENT, problem)


def _read(stated: Mapping[str, Any], held: Held) -> Optimizer:
    schedules = stated.get("schedules")
    return Optimizer(
        {key: stated[key] for key in _keys_of(stated["kind"])},
        tuple(stated["decayed"]),
        schedules
        and OptimizerSchedules(
            floats(schedules["knots"]),
            schedules["interpolation"],
            arrays(schedules["values"]),
            None if schedules["weight_decay"] is None else arrays(schedules["weight_decay"]),
        ),
    )


def _keys_of(kind: str) -> tuple[str, ...]:
    return ("kind", "clip_norm", GROUPS) if kind == GROUPS else SETTINGS[kind]


def _needs(optimizer: Optimizer, horizon: int) -> dict[str, str]:
    needs: dict[str, str] = {}
    for name in optimizer.schedules.names if optimizer.schedules else ():
        capability = "clip_norm" if name == "clip_norm" else "optimizer"
        before = f"{needs[capability]}, " if capability in needs else "tuned of the optimizer: "
        needs[capability] = before + name
    return needs


def _words(optimizer: Optimizer) -> list[str]:
    if (tuned := optimizer.schedules) is None:
        return []
    kind = optimizer.settings["kind"]
    return [f"optimizer, {kind}: {', '.join(tuned.names)}; {stretches(tuned)}"]


def _facts(optimizer: Optimizer) -> list[str]:
    if (tuned := optimizer.schedules) is None:
        return []
    return [f"tuned of the optimizer, instead of the numbers above: {', '.join(tuned.names)}"]


def _views(optimizer: Optimizer, horizon: int) -> list[ByKnot]:
    tuned = optimizer.schedules
    if tuned is None:
        return []
    own = tuned.interpolation
    return [ByKnot(KEY, "optimizer from", tuned.knots, tuned.curves, interpolation=own)]


def _setting(kind: str, key: str) -> Mapping[str, Any]:
    if key == "kind":
        return {"const": kind}
    if key in LIMITS:
        return ref(key)
    if key == "match":
        return {"type": ["string", "null"]}
    if key in ("parameters", *TREATED.get(kind, ())):
        return ref("names")
    return BOOLEAN if key in SWITCHES else COUNT if key in COUNTS else NOT_NEGATIVE


OPTIMIZER: Final = Section(
    KEY,
    capabilities={"optimizer": "optimizer", "clip_norm": "clip norm"},
    written=_written,
    check=_check,
    read=_read,
    schema={"oneOf": [ref(kind) for kind in (*SETTINGS, GROUPS)]},
    needs=_needs,
    words=_words,
    facts=_facts,
    definitions={
        **{
            kind: of_fields(
                {**{key: _setting(kind, key) for key in keys}, "decayed": ref("names")},
                {"schedules": ref("optimizer_schedules")},
            )
            for kind, keys in SETTINGS.items()
        },
        GROUPS: of_fields(
            {
                "kind": {"const": GROUPS},
                "clip_norm": ref("clip_norm"),
                GROUPS: list_of({"oneOf": [ref(f"group_{kind}") for kind in OF_GROUP]}, minItems=1),
                "decayed": ref("names"),
            },
            {"schedules": ref("optimizer_schedules")},
            description="Optimizers side by side, each of its own parameters.",
        ),
        **{
            f"group_{kind}": of_fields({key: _setting(kind, key) for key in keys})
            for kind, keys in OF_GROUP.items()
        },
        "optimizer_schedules": scheduled(
            None,
            {
                "values": by_name(ref("curve")),
                "weight_decay": or_null(by_name(ref("curve"))),
            },
            description="What was tuned of the optimizer: a value for each knot, by the name of a "
            "setting; weight decay by checkpoint name, of each parameter that decays.",
        ),
        "clip_norm": or_null(POSITIVE, description="Largest global norm of the gradient."),
        "clipping_threshold": or_null(
            POSITIVE, description="Largest root mean square of a tensor's update."
        ),
    },
    required=True,
    curves=Optimizer.curves,
    tables=Optimizer.tables,
    views=_views,
    plotted=Plotted("optimizer", "Numbers of the optimizer", "value"),
)
