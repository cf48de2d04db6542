"""What a training is made of besides its recipe, as hashes: what must not change under a run."""

from typing import Any, Final

from metatune.fit.making import provenance
from metatune.inner import InnerTraining

INPUTS: Final = (
    "tokenizer_sha256",
    "data_sha256",
    "model_config",
    "weights_sha256",
    "checkpoints_sha256",
)
"""Of the provenance."""


def inputs(training: InnerTraining) -> dict[str, Any]:
    """The hashes of what a training is made of."""
    held = provenance(training)
    return {key: held[key] for key in INPUTS if key in held}
