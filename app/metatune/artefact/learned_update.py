"""The networks that correct an optimizer's step, as an artefact holds them.

What stands in tuned.json says which parameters share a network and what the networks see; their
weights are in tuned.safetensors.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Literal

import numpy as np

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


def shapes(document: Mapping[str, Any]) -> dict[str, list[int]]:
    """The shapes of the weights, by their names in tuned.safetensors."""
    groups, hidden = len(document["groups"]), document["hidden_size"]
    features = OTHER_FEATURES + len(document["decays"]) + len(document["time_scales"])
    found = {"hidden": [groups, features, hidden], "bias": [groups, hidden]}
    return {f"{PREFIX}{name}": shape for name, shape in {**found, "output": found["bias"]}.items()}


def read(document: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> LearnedUpdate:
    """Networks from what stands in tuned.json and in tuned.safetensors, both sound."""
    return LearnedUpdate(
        groups={label: tuple(names) for label, names in document["groups"].items()},
        decays=tuple(map(float, document["decays"])),
        second_moment_decay=float(document["second_moment_decay"]),
        time_scales=tuple(map(float, document["time_scales"])),
        max_multiplier=float(document["max_multiplier"]),
        step_size=document["step_size"],
        **{name: tensors[f"{PREFIX}{name}"] for name in WEIGHTS},
    )
