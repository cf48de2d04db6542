"""nanochat (Karpathy, 2025): norms without weights, squared ReLU, queries and keys normalised last.

They are rotated before that, backwards. A rotary embedding that scales attention (yarn, longrope)
scales what is normalised then, as in transformers: it does so to the norm's ε alone.
"""

import math
from collections.abc import Mapping
from typing import Any

from metatune.models.architecture import Architecture, Layer
from metatune.models.family import GROUPED, Family, base
from metatune.models.fields import FLAG, POSITIVE, Field


def _architecture(values: Mapping[str, Any], layers: tuple[Layer, ...]) -> Architecture:
    shrunk = values["initializer_range"] / math.sqrt(2 * len(layers))
    return Architecture(
        **{**base(values, layers), "attention_output_initializer_range": shrunk},
        norm="plain_rms",
        gated=False,
        qkv_bias=values["attention_bias"],
        output_bias=values["attention_bias"],
        qk_norm="rotated",
        backwards=True,
        embedding_norm=True,
        logit_softcap=values["final_logit_softcapping"],
    )


NANOCHAT = Family(
    model_type="nanochat",
    causal_class="NanoChatForCausalLM",
    fields={
        **GROUPED,
        "hidden_act": GROUPED["hidden_act"]._replace(default="relu2"),
        "attention_bias": Field(FLAG, False),
        "final_logit_softcapping": Field(POSITIVE, 15.0, nullable=True),
    },
    architecture=_architecture,
    names=((r"\.mlp\.up_proj\.", ".mlp.fc1."), (r"\.mlp\.down_proj\.", ".mlp.fc2.")),
)
