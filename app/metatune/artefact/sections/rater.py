"""A rater: the network that scores the sequences of each batch, for the whole training."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from metatune.artefact.json_schema import COUNT, POSITIVE, SHAPES, of_fields, ref
from metatune.artefact.sections.section import Held, Section, Written
from metatune.artefact.value_checks import ValueChecker, real

KEY: Final = "rater"
UNIT: Final = "weight of a sequence's loss: exp(score / temperature) over its mean in the batch"
PREFIX: Final = "rater."
"""What the names of the tensors of a rater begin with."""

SETTINGS: Final = {
    kind: ("kind", "hidden_size", "layers", *own, "temperature", "vocab_size", "sequence_length")
    for kind, own in {"mlp": (), "transformer": ("heads",)}.items()
}
"""The settings of a rater that an artefact holds, by its kind."""


@dataclass(frozen=True, eq=False)
class Rater:
    """A network that scores sequences, one for the whole training.

    The loss of a sequence weighs `exp(score / temperature)`, over its mean in the batch.

    Attributes:
        settings: exactly the `SETTINGS` of its kind; `sequence_length` is of the tokens of the
            sequences that it was tuned on.
        parameters: float32, by dotted name.
    """

    settings: Mapping[str, Any]
    parameters: Mapping[str, np.ndarray]

    @property
    def tensors(self) -> dict[str, np.ndarray]:
        """The parameters by the names of their tensors in an artefact."""
        return {f"{PREFIX}{name}": held for name, held in self.parameters.items()}


def _written(rater: Rater, apart: bool) -> Written:
    shapes = {name: held.shape for name, held in rater.tensors.items()}
    return Written({"unit": UNIT, **rater.settings, "shapes": shapes}, rater.tensors)


def _check(checker: ValueChecker, stated: Any, document: Mapping[str, Any]) -> None:
    kind = stated.get("kind") if isinstance(stated, Mapping) else None
    if kind not in list(SETTINGS):
        checker.fault(f"{KEY}.kind", kind, f"must be one of {', '.join(SETTINGS)}")
        return
    settings = SETTINGS[kind]
    if not checker.keys(KEY, stated, ("unit", *settings, "shapes")):
        return
    checker.equal(f"{KEY}.unit", stated["unit"], UNIT)
    for key in settings:
        if key == "temperature":
            if not (real(stated[key]) and stated[key] > 0):
                checker.fault(f"{KEY}.{key}", stated[key], "must be a number above 0")
        elif key != "kind":
            checker.count(f"{KEY}.{key}", stated[key])
    if checker.shapes(f"{KEY}.shapes", stated["shapes"]):
        for name in stated["shapes"]:
            if not name.startswith(PREFIX):
                checker.fault(f"{KEY}.shapes.{name}", name, f"must begin with {PREFIX!r}")


def _check_tensors(checker: ValueChecker, stated: Any, tensors: Mapping[str, np.ndarray]) -> None:
    for name, shape in stated["shapes"].items():
        checker.weights(f"{KEY}.shapes.{name}", tensors[name], shape)


def _read(stated: Mapping[str, Any], held: Held) -> Rater:
    settings = {key: stated[key] for key in SETTINGS[stated["kind"]]}
    return Rater(
        settings, {name.removeprefix(PREFIX): held.tensors[name] for name in stated["shapes"]}
    )


def _words(rater: Rater) -> list[str]:
    count = sum(values.size for values in rater.parameters.values())
    return [
        f"rater of sequences: {rater.settings['kind']}, {count:,} parameters, for all of the "
        "training; `metatune score` rates texts with it"
    ]


def _facts(rater: Rater) -> list[str]:
    return [
        f"a rater ({rater.settings['kind']}) of sequences: its settings are in tuned.json, its "
        "parameters in tuned.safetensors, which stays beside it"
    ]


def _schema(kind: str, description: str) -> Mapping[str, Any]:
    own = {"kind": {"const": kind}, "temperature": POSITIVE}
    settings = {key: own.get(key, COUNT) for key in SETTINGS[kind]}
    return of_fields(
        {"unit": {"const": UNIT}, **settings, "shapes": ref("rater_shapes")},
        description=description,
    )


RATER: Final = Section(
    KEY,
    capabilities={"rater": "rater"},
    written=_written,
    check=_check,
    read=_read,
    schema={
        "description": "A network that scores sequences. With scores s, the loss of a sequence "
        "weighs exp(s / temperature) over its mean in the batch. The parameters are float32 "
        "tensors in tensors.file, of these shapes.",
        "oneOf": [ref("mlp_rater"), ref("transformer_rater")],
    },
    needs=lambda rater, horizon: {
        "rater": f"weights of sequences by a rater ({rater.settings['kind']})"
    },
    words=_words,
    facts=_facts,
    definitions={
        "rater_shapes": {**SHAPES, "propertyNames": {"pattern": "^rater\\."}},
        "mlp_rater": _schema(
            "mlp",
            "Each token with the one before it, blocks of one hidden layer, their mean over the "
            "sequence, a scalar.",
        ),
        "transformer_rater": _schema(
            "transformer",
            "The same with attention between the places of a sequence in each block.",
        ),
    },
    apart=lambda stated: True,
    outside=lambda stated: stated["shapes"],
    outside_if={},
    check_tensors=_check_tensors,
    lossy=lambda rater, lost, horizon: None if "rater" in lost else rater,
    alone=("rater", "the parameters of a rater don't stand in a tuned.json"),
)
