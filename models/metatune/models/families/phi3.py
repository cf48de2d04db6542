"""Phi-3 and Phi-4 (Abdin et al., 2024): fused projections, a part of a head is rotated."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from metatune.models.architecture import Architecture, Layer
from metatune.models.families.mistral import plain, window_everywhere
from metatune.models.family import ALL, WITHOUT_DROPOUT, Family, Ropes
from metatune.models.fields import FULL, POSITIVE, SIZE, SLIDING, Field, only
from metatune.models.rope_config import CONTEXT, SECTIONS, SHARE, THETA, RopeFields, read_rope
from metatune.recipe.faults import Fault

TRAINED = 4096
"""The first context, in tokens, where the config doesn't say."""
BESIDE = {THETA: (THETA,), SHARE: (SHARE,), CONTEXT: (CONTEXT,)}


def _ropes(path: str, given: Mapping[str, Any], context: int) -> Ropes:
    for name in SECTIONS:
        section = given.get(name)
        inside = section.get(CONTEXT) if isinstance(section, Mapping) else None
        if CONTEXT not in given and inside not in (None, TRAINED):
            problem = f"is not read there: without one beside {name}, it is {TRAINED:,}"
            cure = f"write {CONTEXT} beside {name}"
            return (Fault(f"{path}.{name}.{CONTEXT}", inside, problem, cure),)
    reads = RopeFields({THETA: 10000.0, SHARE: 1.0}, BESIDE, kinds=("default", "longrope"))
    rope = read_rope(path, {CONTEXT: TRAINED, **given}, context, reads)
    return rope if isinstance(rope, tuple) else dict.fromkeys((FULL, SLIDING), rope)


def _architecture(values: Mapping[str, Any], layers: tuple[Layer, ...]) -> Architecture:
    return replace(plain(values, layers), fused="queries", fused_mlp=True)


PHI3 = Family(
    model_type="phi3",
    causal_class="Phi3ForCausalLM",
    fields={
        **ALL,
        "num_key_value_heads": Field(SIZE, nullable=True),
        "max_position_embeddings": Field(SIZE, 4096),
        "norm_eps": Field(POSITIVE, 1e-5),
        "sliding_window": Field(SIZE, nullable=True),
    },
    architecture=_architecture,
    fixed={**WITHOUT_DROPOUT, "embd_pdrop": only(0), "resid_pdrop": only(0)},
    types=window_everywhere,
    ropes=_ropes,
    rope_fields=(*SECTIONS, THETA, SHARE, CONTEXT),
)
