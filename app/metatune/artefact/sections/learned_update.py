"""The networks that correct an optimizer's step, as an artefact holds them.

What stands in tuned.json says which parameters share a network and what the networks see; their
weights are in tuned.safetensors.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Literal

import numpy as np

from metatune.artefact.curves import counted
from metatune.artefact.json_schema import (
    COUNT,
    FRACTION,
    POSITIVE,
    by_name,
    list_of,
    of_fields,
    ref,
)
from metatune.artefact.sections.learning_rates import parameter_names
from metatune.artefact.sections.section import Held, Section, Written
from metatune.artefact.value_checks import ValueChecker, real

KEY: Final = "learned_update"

UNIT: Final = "factor of the optimizer's direction, by element"
PREFIX: Final = "learned_update."
"""Of the names of its tensors."""

OTHER_FEATURES: Final = 4
"""What networks see besides the moments and the times."""


@dataclass(frozen=True, eq=False)
class LearnedUpdate:
    """Networks with one hidden layer, a row of weights for each group of parameters.

    What they see of an element, in this order: the gradient, its decaying means by decay, the
    parameter, the optimizer's direction, the decaying mean of squared gradients, and one number
    for each time scale. The inner training says how each is computed.

    Attributes:
        groups: checkpoint names of the parameters that share a network; parameters of none keep
            the optimizer's step.
        decays: of the means of the gradient.
        second_moment_decay: of the mean of squared gradients.
        time_scales: in fractions of training.
        max_multiplier: that no factor reaches, nor one over it, before the size is kept.
        step_size: `learned`, or `kept` where a corrected step has the root-mean-square of the
            optimizer's own over each tensor.
        hidden: weights of the hidden layer, float32 [groups, features, hidden].
        bias: of the hidden layer, float32 [groups, hidden].
        output: weights of the output, float32 [groups, hidden].
    """

    groups: Mapping[str, tuple[str, ...]]
    decays: tuple[float, ...]
    second_moment_decay: float
    time_scales: tuple[float, ...]
    max_multiplier: float
    step_size: Literal["learned", "kept"]
    hidden: np.ndarray
    bias: np.ndarray
    output: np.ndarray

    @property
    def tensors(self) -> dict[str, np.ndarray]:
        """The weights, by their names in tuned.safetensors."""
        return {f"{PREFIX}{name}": getattr(self, name) for name in WEIGHTS}

    @property
    def size(self) -> int:
        """How many weights there are."""
        return sum(tensor.size for tensor in self.tensors.values())

    def document(self) -> dict[str, Any]:
        """What stands in tuned.json."""
        held = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in WEIGHTS}
        return {"unit": UNIT, "hidden_size": self.bias.shape[-1], **held}


WEIGHTS: Final = ("hidden", "bias", "output")
KEYS: Final = (
    "unit",
    "hidden_size",
    *(field.name for field in fields(LearnedUpdate) if field.name not in WEIGHTS),
)
"""Of what stands in tuned.json."""


def _shapes(stated: Mapping[str, Any]) -> dict[str, list[int]]:
    """The shapes of the weights, by their names in tuned.safetensors."""
    groups, hidden = len(stated["groups"]), stated["hidden_size"]
    features = OTHER_FEATURES + len(stated["decays"]) + len(stated["time_scales"])
    found = {"hidden": [groups, features, hidden], "bias": [groups, hidden]}
    return {f"{PREFIX}{name}": shape for name, shape in {**found, "output": found["bias"]}.items()}


def _check(checker: ValueChecker, stated: Any, document: Mapping[str, Any]) -> None:
    if not checker.keys(KEY, stated, KEYS):
        return
    checker.equal(f"{KEY}.unit", stated["unit"], UNIT)
    checker.count(f"{KEY}.hidden_size", stated["hidden_size"])
    for key, allowed in (("decays", "below 1"), ("time_scales", "of any size")):
        if checker.is_a(f"{KEY}.{key}", stated[key], list, "a list of numbers"):
            for index, number in enumerate(stated[key]):
                if not (real(number) and 0 < number and (key != "decays" or number < 1)):
                    problem = f"must be a number above 0, {allowed}"
                    checker.fault(f"{KEY}.{key}[{index}]", number, problem)
    if not (real(decay := stated["second_moment_decay"]) and 0 < decay < 1):
        checker.fault(f"{KEY}.second_moment_decay", decay, "must be between 0 and 1")
    if not (real(most := stated["max_multiplier"]) and most > 1):
        checker.fault(f"{KEY}.max_multiplier", most, "must be a number above 1")
    if stated["step_size"] not in ("learned", "kept"):
        checker.fault(f"{KEY}.step_size", stated["step_size"], "must be learned or kept")
    if checker.is_a(f"{KEY}.groups", stated["groups"], Mapping, "an object"):
        for group, found in stated["groups"].items():
            checker.known(f"{KEY}.groups.{group}", found, parameter_names(document))


def _check_tensors(checker: ValueChecker, stated: Any, tensors: Mapping[str, np.ndarray]) -> None:
    for name, shape in _shapes(stated).items():
        checker.weights(name, tensors[name], shape)


def _read(stated: Mapping[str, Any], held: Held) -> LearnedUpdate:
    return LearnedUpdate(
        groups={label: tuple(names) for label, names in stated["groups"].items()},
        decays=tuple(map(float, stated["decays"])),
        second_moment_decay=float(stated["second_moment_decay"]),
        time_scales=tuple(map(float, stated["time_scales"])),
        max_multiplier=float(stated["max_multiplier"]),
        step_size=stated["step_size"],
        **{name: held.tensors[f"{PREFIX}{name}"] for name in WEIGHTS},
    )


def _networks(learned: LearnedUpdate, one: str, many: str) -> str:
    return f"{counted(len(learned.groups), one, many)} of {learned.size:,} weights"


def _words(learned: LearnedUpdate) -> list[str]:
    networks = _networks(learned, "network", "networks")
    return [f"learned update: {networks}, which correct each step element by element"]


def _facts(learned: LearnedUpdate) -> list[str]:
    count = len(learned.groups)
    return [f"networks that correct each step: {count}, of {learned.size:,} weights"]


LEARNED_UPDATE: Final = Section(
    KEY,
    capabilities={"learned_update": "learned update"},
    written=lambda learned, apart: Written(learned.document(), learned.tensors),
    check=_check,
    read=_read,
    schema=of_fields(
        {
            "unit": {"const": UNIT},
            "hidden_size": COUNT,
            "groups": by_name(
                ref("names"),
                description="Checkpoint names of the parameters that share a network, in the order "
                "of the tensors' axis 0.",
            ),
            "decays": list_of(FRACTION, description="Of the means of the gradient."),
            "second_moment_decay": FRACTION,
            "time_scales": list_of(POSITIVE, description="In fractions of training."),
            "max_multiplier": {"description": "M.", "type": "number", "exclusiveMinimum": 1},
            "step_size": {
                "description": "kept: m d is scaled to the root-mean-square of d over each tensor.",
                "enum": ["learned", "kept"],
            },
        },
        description="Networks with one hidden layer that correct the optimizer's direction d "
        "element by element, where they were tuned: m d, m = exp(log M tanh(o / log M)), o = "
        "output · tanh(hidden x + bias). Their weights are float32 tensors in tensors.file: "
        "learned_update.hidden [groups, features, hidden_size], learned_update.bias and "
        "learned_update.output [groups, hidden_size].",
    ),
    needs=lambda learned, horizon: {
        "learned_update": f"a learned update: {_networks(learned, 'networks', 'networks')}"
    },
    words=_words,
    facts=_facts,
    apart=lambda stated: True,
    outside=_shapes,
    outside_if={},
    check_tensors=_check_tensors,
    lossy=lambda learned, lost, horizon: None if "learned_update" in lost else learned,
    modules={readme: f"learned_update_{readme}.py" for readme in ("optax", "torch")},
    alone=("learned_update", "networks don't stand in a tuned.json"),
)
