"""OLMo 3 (OLMo Team, 2025): OLMo 2 with windows on three layers of four, and ropes by type."""

from collections.abc import Mapping
from typing import Any

from metatune.models.families.olmo2 import OLMO2, normed_after
from metatune.models.family import Family, Ropes
from metatune.models.fields import FULL, LAYER_TYPES, SIZE, SLIDING, Field
from metatune.models.rope_config import SECTIONS, THETA, WHOLE_PAIRS, RopeFields, read_by_layer
from metatune.recipe.faults import Fault

DEFAULT = 5e5


def _types(values: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(SLIDING if (i + 1) % 4 else FULL for i in range(values["num_hidden_layers"]))


def _ropes(path: str, given: Mapping[str, Any], context: int) -> Ropes:
    reads = {
        FULL: RopeFields({THETA: DEFAULT}, rules=WHOLE_PAIRS),
        SLIDING: RopeFields({THETA: DEFAULT}, {}, rules=WHOLE_PAIRS),
    }
    found = read_by_layer(path, given, context, reads)
    beside = given.get(THETA)
    if not isinstance(found, tuple) and beside not in (None, DEFAULT):
        sliding = found[SLIDING]
        if sliding is not None and sliding.rope_theta == DEFAULT:
            problem = (
                "was of all layers in transformers 4 and is of the full ones in 5, where those "
                f"with windows have {DEFAULT:g}"
            )
            cure = f"write {SECTIONS[0]} with {FULL} and {SLIDING}, and {THETA} in each"
            return (Fault(f"{path}.{THETA}", beside, problem, cure),)
    return found


OLMO3 = Family(
    model_type="olmo3",
    causal_class="Olmo3ForCausalLM",
    fields={
        **OLMO2.fields,
        "sliding_window": Field(SIZE, 4096, nullable=True),
        "layer_types": Field(LAYER_TYPES, nullable=True),
    },
    architecture=normed_after,
    types=_types,
    ropes=_ropes,
)
