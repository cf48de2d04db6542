"""Ministral 3's text model (Mistral AI, 2025): Mistral, its queries scaled by their position."""

from collections.abc import Mapping
from typing import Any

from metatune.models.families.mistral import plain, window_everywhere
from metatune.models.family import GROUPED, Family, Ropes, one_rope
from metatune.models.fields import POSITIVE, SIZE, Field
from metatune.models.rope_config import BETA, CONTEXT, SECTIONS, THETA

ROPE: Mapping[str, Any] = {
    "rope_type": "yarn",
    THETA: 1e6,
    "factor": 16.0,
    CONTEXT: 16384,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    BETA: 0.1,
}
"""Where the config has no section; of one that it has, nothing is filled in."""
_read = one_rope(required=(BETA,), without_effect=("max_position_embeddings",))


def _ropes(path: str, given: Mapping[str, Any], context: int) -> Ropes:
    absent = not any(name in given for name in SECTIONS)
    return _read(path, {**given, SECTIONS[0]: ROPE} if absent else given, context)


MINISTRAL3 = Family(
    model_type="ministral3",
    causal_class="Ministral3ForCausalLM",
    fields={
        **GROUPED,
        "num_key_value_heads": Field(SIZE, 8, nullable=True),
        "head_dim": Field(SIZE, 128, nullable=True),
        "max_position_embeddings": Field(SIZE, 262144),
        "norm_eps": Field(POSITIVE, 1e-5),
        "sliding_window": Field(SIZE, nullable=True),
    },
    architecture=plain,
    types=window_everywhere,
    ropes=_ropes,
)
