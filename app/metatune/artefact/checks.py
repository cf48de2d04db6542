"""The checks on the document of an artefact, the same when it is written and when it is read.

`schema.json` says the same of the shape to other programs; these checks say what is wrong with a
value, and hold the rules between fields, which a schema can't.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from metatune.artefact import initialisation, learned_update, result_checks
from metatune.artefact.format import (
    CLASS_WEIGHT_UNIT,
    ELEMENT_UNIT,
    LOSS_TERM_UNIT,
    LOSS_TERMS,
    LOSS_WEIGHT_UNIT,
    MIXTURE_UNIT,
    MULTIPLIER_UNIT,
    RATE_UNIT,
    RATER_SETTINGS,
    RATER_TENSORS,
    RATER_UNIT,
    SETTINGS,
    TABLE,
    TENSORS,
)
from metatune.artefact.value_checks import NOT_NEGATIVE, ValueChecker, real
from metatune.recipe.faults import ABSENT

SUM_TOLERANCE = 1e-9
"""How far a sum of float64 shares may be from one."""

KEYS = (
    "format",
    "version",
    "horizon",
    "learning_rates",
    "mixture",
    "loss_weights",
    "optimizer",
    "provenance",
    "result",
    "integrity",
)

ROOT = "artefact"


class Checker(ValueChecker):
    """Walks through a document and collects its faults."""

    def document(self, document: Mapping[str, Any]) -> None:
        """Checks everything but the format, the version, and what stands in other files."""
        optional = ("tensors", "initialisation", "learned_update", "loss_terms", "rater")
        if not self._keys(ROOT, document, KEYS, optional):
            return
        if self._keys("horizon", document["horizon"], ("steps", "tokens")):
            for key, value in document["horizon"].items():
                self._count(f"horizon.{key}", value)
        names = self._learning_rates(document["learning_rates"])
        if "learned_update" in document:
            self._learned_update(document["learned_update"], names)
        if "rater" in document:
            self._rater(document["rater"])
        self._numbers_outside(document)
        self._mixture(document["mixture"])
        self._loss_weights(document["loss_weights"])
        self._optimizer(document["optimizer"], names)
        if "loss_terms" in document:
            self._loss_terms(document["loss_terms"])
        if "initialisation" in document:
            self.faults += initialisation.faults(document["initialisation"], names, self.cure)
        for key in ("provenance", "result"):
            if self._is(key, document[key], Mapping, "an object"):
                self._plain(key, document[key])
        self.faults += result_checks.faults(document["result"], self.cure)
        if self._keys("integrity", document["integrity"], ("sha256",), optional=("files",)):
            self._is("integrity.sha256", document["integrity"]["sha256"], str, "a string")
            self._files("integrity.files", document["integrity"].get("files", {}))
        if "tensors" in document and self._keys("tensors", document["tensors"], ("file", "sha256")):
            self._equal("tensors.file", document["tensors"]["file"], TENSORS)
            self._is("tensors.sha256", document["tensors"]["sha256"], str, "a string")

    def _files(self, path: str, value: Any) -> None:
        if self._is(path, value, Mapping, "an object"):
            for name, stated in value.items():
                if not name or "/" in name or "\\" in name:
                    self._fault(path, name, "must be the name of a file in the same folder")
                self._is(f"{path}.{name}", stated, str, "a string")

    def tensors(self, document: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> None:
        """Checks what stands in the other file of a document that is sound itself."""
        rates = document["learning_rates"]
        parameters, elements = rates["parameters"], rates.get("elements")
        wanted = [TABLE] if _elsewhere(parameters) else []
        wanted += elements["shapes"] if elements else []
        learned = document.get("learned_update")
        shapes = learned_update.shapes(learned) if learned else {}
        wanted += shapes
        of_rater = document["rater"]["shapes"] if "rater" in document else {}
        wanted += of_rater
        missing = [repr(name) for name in wanted if name not in tensors]
        if missing:
            self._fault("tensors", sorted(tensors), f"must hold {', '.join(missing)}")
            return
        if _elsewhere(parameters):
            self._rates(parameters["names"], tensors[TABLE], len(rates["knots"]))
        for name, shape in elements["shapes"].items() if elements else ():
            self._factors(name, tensors[name], [len(elements["knots"]), *shape])
        for name, shape in shapes.items():
            self._weights(name, tensors[name], shape)
        for name, shape in of_rater.items():
            self._weights(f"rater.shapes.{name}", tensors[name], shape)

    def _weights(self, path: str, weights: np.ndarray, expected: list[int]) -> None:
        if list(weights.shape) != expected or weights.dtype != np.float32:
            found = f"{weights.dtype} {list(weights.shape)}"
            self._fault(path, found, f"must be float32 {expected}")
        elif not np.isfinite(weights).all():
            self._fault(path, float(weights[~np.isfinite(weights)][0]), "must be finite numbers")

    def _factors(self, name: str, factors: np.ndarray, expected: list[int]) -> None:
        path = f"learning_rates.elements.{name}"
        if list(factors.shape) != expected or factors.dtype != np.float32:
            problem = f"must be float32 {expected}, for [knots, ...]"
            self._fault(path, f"{factors.dtype} {list(factors.shape)}", problem)
            return
        bad = factors[~(np.isfinite(factors) & (factors >= 0))]
        if bad.size:
            self._fault(path, float(bad[0]), NOT_NEGATIVE)

    def _rates(self, names: Sequence[str], rates: np.ndarray, knots: int) -> None:
        """Checks an array of learning rates, float64 [names, knots]."""
        path, expected = "learning_rates.parameters", (len(names), knots)
        if rates.shape != expected or rates.dtype != np.float64:
            problem = f"must be float64 {list(expected)}, for [parameters, knots]"
            self._fault(path, f"{rates.dtype} {list(rates.shape)}", problem)
            return
        bad = ~(np.isfinite(rates) & (rates >= 0))
        for row in np.flatnonzero(bad.any(axis=1)).tolist():
            knot = int(bad[row].argmax())
            self._fault(f"{path}.{names[row]}[{knot}]", float(rates[row, knot]), NOT_NEGATIVE)

    def _learning_rates(self, value: Any) -> Sequence[str] | None:
        """Returns the names of the parameters; None where they can't be known."""
        path = "learning_rates"
        keys = ("unit", "interpolation", "knots", "parameters", "multipliers")
        if not self._keys(path, value, keys, optional=("elements",)):
            return None
        in_tensor = _elsewhere(value["parameters"])
        self._equal(f"{path}.unit", value["unit"], RATE_UNIT)
        self._interpolation(f"{path}.interpolation", value["interpolation"])
        count = self._knots(f"{path}.knots", value["knots"])
        parameters = value["parameters"]
        if in_tensor:
            if not self._keys(f"{path}.parameters", parameters, ("names", "tensor")):
                return None
            self._equal(f"{path}.parameters.tensor", parameters["tensor"], "learning_rates")
            names = self._names(f"{path}.parameters.names", parameters["names"])
        else:
            if not self._is(f"{path}.parameters", parameters, Mapping, "an object"):
                return None
            names = list(parameters)
            for name, curve in parameters.items():
                self._curve(f"{path}.parameters.{name}", curve, count)
        if not names:
            self._fault(f"{path}.parameters", [], "must hold every parameter of the model")
        if value["multipliers"] is not None:
            self._multipliers(value["multipliers"], names)
        if "elements" in value:
            self._elements(value["elements"], names)
        return names

    def _multipliers(self, value: Any, names: Iterable[str] | None) -> None:
        path = "learning_rates.multipliers"
        keys = ("unit", "knots", "groups", "members")
        if not self._keys(path, value, keys, optional=("interpolation",)):
            return
        self._interpolation(f"{path}.interpolation", value.get("interpolation", "constant"))
        self._equal(f"{path}.unit", value["unit"], MULTIPLIER_UNIT)
        count = self._knots(f"{path}.knots", value["knots"])
        groups, members = value["groups"], value["members"]
        if not self._is(f"{path}.groups", groups, Mapping, "an object"):
            return
        for group, curve in groups.items():
            self._curve(f"{path}.groups.{group}", curve, count)
        if self._keys(f"{path}.members", members, tuple(groups)):
            for group, found in members.items():
                self._known(f"{path}.members.{group}", found, names)

    def _elements(self, value: Any, names: Iterable[str] | None) -> None:
        path = "learning_rates.elements"
        if not self._keys(path, value, ("unit", "interpolation", "knots", "shapes")):
            return
        self._equal(f"{path}.unit", value["unit"], ELEMENT_UNIT)
        self._interpolation(f"{path}.interpolation", value["interpolation"])
        self._knots(f"{path}.knots", value["knots"])
        if not self._is(f"{path}.shapes", value["shapes"], Mapping, "an object"):
            return
        if names is not None and set(value["shapes"]) != set(names):
            problem = "must have every parameter of learning_rates.parameters and no other"
            self._fault(f"{path}.shapes", list(value["shapes"]), problem)
        for name, shape in value["shapes"].items():
            if self._is(f"{path}.shapes.{name}", shape, list, "a list of sizes"):
                for axis, size in enumerate(shape):
                    self._count(f"{path}.shapes.{name}[{axis}]", size)

    def _numbers_outside(self, document: Mapping[str, Any]) -> None:
        """There is a file of tensors if it is needed."""
        rates = document["learning_rates"]
        if not isinstance(rates, Mapping) or "parameters" not in rates:
            return  # a fault of its own
        networks = "rater" in document or "learned_update" in document
        outside = _elsewhere(rates["parameters"]) or "elements" in rates or networks
        if outside != ("tensors" in document):
            problem = "must be there if, and only if, something has numbers outside"
            self._fault("tensors", "tensors" in document or ABSENT, problem)

    def _rater(self, value: Any) -> None:
        kind = value.get("kind") if isinstance(value, Mapping) else None
        if kind not in list(RATER_SETTINGS):
            self._fault("rater.kind", kind, f"must be one of {', '.join(RATER_SETTINGS)}")
            return
        settings = RATER_SETTINGS[kind]
        if not self._keys("rater", value, ("unit", *settings, "shapes")):
            return
        self._equal("rater.unit", value["unit"], RATER_UNIT)
        for key in settings:
            if key == "temperature":
                if not (real(value[key]) and value[key] > 0):
                    self._fault(f"rater.{key}", value[key], "must be a number above 0")
            elif key != "kind":
                self._count(f"rater.{key}", value[key])
        if self._is("rater.shapes", value["shapes"], Mapping, "an object"):
            for name, shape in value["shapes"].items():
                path = f"rater.shapes.{name}"
                if not name.startswith(RATER_TENSORS):
                    self._fault(path, name, f"must begin with {RATER_TENSORS!r}")
                if self._is(path, shape, list, "a list of sizes"):
                    for axis, size in enumerate(shape):
                        self._count(f"{path}[{axis}]", size)

    def _learned_update(self, value: Any, names: Iterable[str] | None) -> None:
        path = "learned_update"
        if not self._keys(path, value, learned_update.KEYS):
            return
        self._equal(f"{path}.unit", value["unit"], learned_update.UNIT)
        self._count(f"{path}.hidden_size", value["hidden_size"])
        for key, allowed in (("decays", "below 1"), ("time_scales", "of any size")):
            if self._is(f"{path}.{key}", value[key], list, "a list of numbers"):
                for index, number in enumerate(value[key]):
                    if not (real(number) and 0 < number and (key != "decays" or number < 1)):
                        problem = f"must be a number above 0, {allowed}"
                        self._fault(f"{path}.{key}[{index}]", number, problem)
        if not (real(decay := value["second_moment_decay"]) and 0 < decay < 1):
            self._fault(f"{path}.second_moment_decay", decay, "must be between 0 and 1")
        if not (real(most := value["max_multiplier"]) and most > 1):
            self._fault(f"{path}.max_multiplier", most, "must be a number above 1")
        if value["step_size"] not in ("learned", "kept"):
            self._fault(f"{path}.step_size", value["step_size"], "must be learned or kept")
        if self._is(f"{path}.groups", value["groups"], Mapping, "an object"):
            for group, found in value["groups"].items():
                self._known(f"{path}.groups.{group}", found, names)

    def _mixture(self, value: Any) -> None:
        for path, row in self._rows("mixture", value, MIXTURE_UNIT, "domains"):
            self._sums_to_one(path, row)

    def _loss_weights(self, value: Any) -> None:
        if isinstance(value, Mapping) and "classes" in value:
            self._class_weights(value)
            return
        for path, row in self._rows("loss_weights", value, LOSS_WEIGHT_UNIT, "domains"):
            mean = math.fsum(row) / len(row)
            if abs(mean - 1) > SUM_TOLERANCE:
                self._fault(f"{path}, mean", mean, "loss weights must average 1 over the domains")

    def _class_weights(self, value: Mapping[str, Any]) -> None:
        own = ("shares", *(key for key in ("positions", "vocabulary", "labels") if key in value))
        rows = list(self._rows("loss_weights", value, CLASS_WEIGHT_UNIT, "classes", own))
        where = "loss_weights.shares"
        if not rows or not self._curve(where, value["shares"], len(value["classes"]), "classes"):
            return
        self._sums_to_one(where, value["shares"])
        for path, row in rows:
            mean = math.fsum(s * w for s, w in zip(value["shares"], row, strict=True))
            if abs(mean - 1) > SUM_TOLERANCE:
                problem = "loss weights must average 1 over the shares of the classes"
                self._fault(f"{path}, mean", mean, problem)
        if len(own) > 2:
            problem = "classes are by one of these, not by several"
            self._fault("loss_weights", list(own[1:]), problem)
        if value.get("labels", True) is not True:
            self._fault("loss_weights.labels", value["labels"], "must be true, or not there")
        if "positions" in value:
            self._positions(value["positions"], len(value["classes"]))
        if "vocabulary" in value:
            self._vocabulary(value["vocabulary"], len(value["classes"]))

    def _positions(self, value: Any, count: int) -> None:
        path = "loss_weights.positions"
        if not self._keys(path, value, ("sequence_length", "starts")):
            return
        self._count(f"{path}.sequence_length", value["sequence_length"])
        starts = value["starts"]
        if not self._is(f"{path}.starts", starts, list, "a list of positions"):
            return
        for index, start in enumerate(starts):
            self._count(f"{path}.starts[{index}]", start)
        if self.faults:
            return
        edges = [*starts, value["sequence_length"]]
        increasing = all(a < b for a, b in zip(edges, edges[1:], strict=False))
        if len(starts) != count or starts[0] != 1 or not increasing:
            problem = f"must be {count} positions, from 1 up, increasing, below sequence_length"
            self._fault(f"{path}.starts", starts, problem)

    def _vocabulary(self, value: Any, count: int) -> None:
        path = "loss_weights.vocabulary"
        if not self._is(path, value, list, "a list of the class of each token"):
            return
        for token, place in enumerate(value):
            if not isinstance(place, int) or isinstance(place, bool) or not 0 <= place < count:
                problem = f"must be the place of a class, 0 to {count - 1}"
                self._fault(f"{path}[{token}]", place, problem)
                return

    def _sums_to_one(self, path: str, shares: list[float]) -> None:
        if abs(math.fsum(shares) - 1) > SUM_TOLERANCE:
            self._fault(f"{path}, sum", math.fsum(shares), "shares must sum to 1")

    def _rows(
        self, path: str, value: Any, unit: str, columns: str, more: tuple[str, ...] = ()
    ) -> Iterable[tuple[str, list[float]]]:
        """Checks what mixture and loss weights share; yields the rows that are sound so far.

        Args:
            path: of the schedule.
            value: the schedule.
            unit: that it must have.
            columns: the key of the names of the columns.
            more: further keys of the schedule.
        """
        if value is None:
            return
        keys = ("unit", "interpolation", "knots", columns, *more, "weights")
        if not self._keys(path, value, keys):
            return
        self._equal(f"{path}.unit", value["unit"], unit)
        self._interpolation(f"{path}.interpolation", value["interpolation"])
        count = self._knots(f"{path}.knots", value["knots"])
        names, rows = self._names(f"{path}.{columns}", value[columns]), value["weights"]
        if not names:
            self._fault(f"{path}.{columns}", [], f"must name at least one of the {columns}")
        elif self._is(f"{path}.weights", rows, list, "a list of lists"):
            if len(rows) != count:
                problem = f"must have a row for each of the {count} knots"
                self._fault(f"{path}.weights, length", len(rows), problem)
            for index, row in enumerate(rows):
                if self._curve(f"{path}.weights[{index}]", row, len(names), columns):
                    yield f"{path}.weights[{index}]", row

    def _optimizer(self, value: Any, names: Iterable[str] | None) -> None:
        if not self._is("optimizer", value, Mapping, "an object"):
            return
        kind = value.get("kind")
        if kind not in list(SETTINGS):  # a list: what was received may not be hashable
            self._fault("optimizer.kind", kind, f"must be one of {', '.join(SETTINGS)}")
        elif self._keys("optimizer", value, (*SETTINGS[kind], "decayed"), ("schedules",)):
            for key in SETTINGS[kind]:
                path = f"optimizer.{key}"
                if key in ("nesterov", "scale_by_parameter"):
                    self._is(path, value[key], bool, "true or false")
                elif key in ("clip_norm", "clipping_threshold"):
                    if value[key] is not None and not (real(value[key]) and value[key] > 0):
                        self._fault(path, value[key], "must be a number above 0, or null")
                elif key != "kind" and not (real(value[key]) and value[key] >= 0):
                    self._fault(path, value[key], NOT_NEGATIVE)
            self._known("optimizer.decayed", value["decayed"], names)
            if "schedules" in value:
                self._optimizer_schedules(value["schedules"], SETTINGS[kind], value["decayed"])

    def _optimizer_schedules(
        self, value: Any, settings: Sequence[str], decayed: Sequence[str]
    ) -> None:
        path = "optimizer.schedules"
        if not self._keys(path, value, ("interpolation", "knots", "values", "weight_decay")):
            return
        self._interpolation(f"{path}.interpolation", value["interpolation"])
        count = self._knots(f"{path}.knots", value["knots"])
        known = [key for key in settings if key not in ("kind", "weight_decay")]
        for field, allowed, whole in (("values", known, False), ("weight_decay", decayed, True)):
            curves = value[field]
            if not isinstance(curves, Mapping):
                if not (whole and curves is None):
                    self._fault(f"{path}.{field}", curves, "must be an object")
                continue
            for name, curve in curves.items():
                if name not in allowed:
                    problem = f"must be one of {', '.join(allowed)}"
                    self._fault(f"{path}.{field}", name, problem)
                self._curve(f"{path}.{field}.{name}", curve, count)
            if whole and (missing := [name for name in allowed if name not in curves]):
                problem = "must have a curve for each of optimizer.decayed"
                self._fault(f"{path}.{field}.{missing[0]}", ABSENT, problem)

    def _loss_terms(self, value: Any) -> None:
        path = "loss_terms"
        if not self._keys(path, value, ("unit", "interpolation", "knots", "values", "tuned")):
            return
        self._equal(f"{path}.unit", value["unit"], LOSS_TERM_UNIT)
        self._interpolation(f"{path}.interpolation", value["interpolation"])
        count = self._knots(f"{path}.knots", value["knots"])
        values = value["values"]
        if not self._is(f"{path}.values", values, Mapping, "an object"):
            return
        if not values:
            self._fault(f"{path}.values", {}, f"must hold one of {', '.join(LOSS_TERMS)}")
        for name, curve in values.items():
            if name not in LOSS_TERMS:
                self._fault(f"{path}.values", name, f"must be one of {', '.join(LOSS_TERMS)}")
            sound = self._curve(f"{path}.values.{name}", curve, count)
            if sound and name == "label_smoothing" and max(curve) > 1:
                self._fault(f"{path}.values.{name}", max(curve), "must be 1 or below")
        for name in self._names(f"{path}.tuned", value["tuned"]):
            if name not in values:
                self._fault(f"{path}.tuned", name, "must be a name of loss_terms.values")


def _elsewhere(parameters: Any) -> bool:
    """Whether the curves of all parameters stand in a tensor outside the document."""
    return isinstance(parameters, Mapping) and isinstance(parameters.get("tensor"), str)
