"""The estimators of recipes. A new one is a row of `ESTIMATORS`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from metatune.hypergrad import Checkpoints, MixFlow, Reverse
from metatune.hypergrad.estimator import Estimator
from metatune.recipe import schema

GRADIENT_DTYPES: Final = {"float32": None, "bfloat16": "bfloat16"}  # parameters are float32


def _mixflow(spec: Any) -> MixFlow:
    dtype = GRADIENT_DTYPES[spec.gradient_dtype]
    return MixFlow(spec.segment, spec.mixed_mode, spec.save_gradients, dtype)


def _reverse(spec: Any) -> Reverse:
    return Reverse(spec.segment, spec.remat)


ESTIMATORS: Final[Mapping[type, Callable[[Any], Estimator]]] = {
    schema.MixFlow: _mixflow,
    schema.Reverse: _reverse,
}


def build(spec: schema.MixFlow | schema.Reverse) -> Estimator:
    """The estimator that a recipe asks for."""
    return ESTIMATORS[type(spec)](spec)


def checkpoints(spec: schema.Checkpoints, folder: Path) -> Checkpoints:
    """What is kept of an inner training, a disk's files in `folder`."""
    on_disk = folder if spec.store == "disk" else None
    return Checkpoints(spec.keep, spec.slots, spec.store, on_disk, spec.budget_bytes)
