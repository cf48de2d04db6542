"""A model's config at other sizes, its shape kept: more heads of the same size, more blocks."""

from collections.abc import Mapping
from typing import Any, Final

from metatune.models.families import FAMILIES

WIDE: Final = (
    "hidden_size",
    "intermediate_size",
    "moe_intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
)
DEEP: Final = "num_hidden_layers"
BY_LAYER: Final = ("layer_types", "no_rope_layers")
"""Fields that list the blocks: they go out, and the family's own pattern comes in."""


def enlarged(config: Mapping[str, Any], *, width: int = 1, depth: int = 1) -> dict[str, Any]:
    """A config so many times as wide and as deep.

    Args:
        config: fields of a `config.json`.
        width: times the features of the residual stream and of the MLPs, and the heads.
        depth: times the blocks.
    """
    spelled = FAMILIES[config["model_type"]].spelled
    changed = dict(config)
    for field in WIDE:
        if config.get(spelled(field)) is not None:
            changed[spelled(field)] = width * config[spelled(field)]
    changed[spelled(DEEP)] = depth * config[spelled(DEEP)]
    if depth != 1:
        for field in BY_LAYER:
            changed.pop(field, None)
    return changed
