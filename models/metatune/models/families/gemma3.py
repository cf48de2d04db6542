"""Gemma 3's text model (Gemma Team, 2025): local layers have a window and a rope of their own."""

from collections.abc import Mapping
from typing import Any

from metatune.models.architecture import Architecture, Layer
from metatune.models.families.gemma import CAUSAL, TANH, gemma_base
from metatune.models.families.gemma2 import GEMMA2, scaled
from metatune.models.family import Family, Ropes
from metatune.models.fields import FULL, NULL, POSITIVE, SIZE, SLIDING, Field, only
from metatune.models.rope import Rope
from metatune.models.rope_config import SECTIONS, THETA, read_rope, read_section
from metatune.recipe.faults import Fault, unknown

LOCAL = "rope_local_base_freq"
"""The windowed layers' theta in transformers 4."""


def _types(values: Mapping[str, Any]) -> tuple[str, ...]:
    every, count = values["sliding_window_pattern"], values["num_hidden_layers"]
    return tuple(SLIDING if (i + 1) % every else FULL for i in range(count))


def _ropes(path: str, given: Mapping[str, Any], context: int) -> Ropes:
    """Transformers 5 nests the sections; what stands beside them in 4 is of the full layers."""
    newer, older = SECTIONS
    defaults = {FULL: {THETA: 1e6}, SLIDING: {THETA: 1e4}}
    beside = {FULL: {THETA: (THETA,)}, SLIDING: {THETA: (LOCAL,)}}
    nested = given.get(newer, {})
    here = f"{path}.{newer}"
    if not isinstance(nested, Mapping):
        problem = f"must be a mapping with {FULL} and {SLIDING}"
        return (Fault(here, nested, problem, "leave it out for the default"),)
    strangers = [name for name in nested if name not in defaults]
    if strangers:
        return tuple(
            unknown(f"{here}.{name}", nested[name], "type of layer", name, list(defaults))
            for name in strangers
        )
    read: dict[str, Rope | tuple[Fault, ...]] = {}
    for kind in defaults:
        section = nested.get(kind)
        if kind == FULL and older in given and section is None:
            read[kind] = read_rope(path, given, context, defaults[kind], beside[kind])
        else:
            read[kind] = read_section(
                f"{here}.{kind}", section or {}, context, defaults[kind], path, given, beside[kind]
            )
    faults = [fault for rope in read.values() if isinstance(rope, tuple) for fault in rope]
    if older in given and nested.get(FULL) is not None:
        problem = f"stands beside {newer}, which is its newer name"
        faults.append(Fault(f"{path}.{older}", given[older], problem, "leave out one of the two"))
    return tuple(faults) or {kind: rope for kind, rope in read.items() if isinstance(rope, Rope)}


def _architecture(values: Mapping[str, Any], layers: tuple[Layer, ...]) -> Architecture:
    return Architecture(
        **gemma_base(values, scaled(values, layers)),
        post_norms=True,
        qk_norm=True,
        logit_softcap=values["final_logit_softcapping"],
    )


GEMMA3 = Family(
    model_type="gemma3_text",
    causal_class="Gemma3ForCausalLM",
    fields={
        **{k: v for k, v in GEMMA2.fields.items() if k != "attn_logit_softcapping"},
        "max_position_embeddings": Field(SIZE, 131072),
        "final_logit_softcapping": Field(POSITIVE, nullable=True),
        "sliding_window_pattern": Field(SIZE, 6),
    },
    architecture=_architecture,
    spelling=GEMMA2.spelling,
    # Transformers reads the cap on attention's scores and doesn't apply it.
    fixed={**CAUSAL, "hidden_act": only(TANH), "attn_logit_softcapping": NULL},
    without_effect=frozenset({"_sliding_window_pattern"}),
    types=_types,
    ropes=_ropes,
    rope_fields=(*SECTIONS, THETA, LOCAL),
)
