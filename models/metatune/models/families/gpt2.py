"""GPT-2 (Radford et al., 2019): learned positions, matrices [in, out], one for q, k and v.

Its files always ask for dropout. None is applied: what a checkpoint computes doesn't depend on it,
and its training here is without.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from metatune.models.architecture import Architecture, Layer
from metatune.models.family import ALL, Family, Ropes, base
from metatune.models.fields import FLAG, FULL, POSITIVE, SIZE, Field, only


def _no_ropes(path: str, given: Mapping[str, Any], context: int) -> Ropes:
    return {FULL: None}


def _architecture(values: Mapping[str, Any], layers: tuple[Layer, ...]) -> Architecture:
    usual, inverse = values["scale_attn_weights"], values["scale_attn_by_inverse_layer_idx"]
    scaled = tuple(
        replace(layer, scale=(layer.scale if usual else 1.0) / (i + 1 if inverse else 1))
        for i, layer in enumerate(layers)
    )
    inner = values["intermediate_size"] or 4 * values["hidden_size"]
    shrunk = values["initializer_range"] / math.sqrt(2 * len(layers))
    return Architecture(
        **{
            **base({**values, "intermediate_size": inner}, scaled),
            "attention_output_initializer_range": shrunk,
            "mlp_output_initializer_range": shrunk,
        },
        norm="layer",
        gated=False,
        fused="queries",
        transposed=True,
        qkv_bias=True,
        output_bias=True,
        mlp_bias=True,
        learned_positions=True,
    )


GPT2 = Family(
    model_type="gpt2",
    causal_class="GPT2LMHeadModel",
    fields={
        **ALL,
        "intermediate_size": Field(SIZE, nullable=True),
        "max_position_embeddings": Field(SIZE, 1024),
        "hidden_act": ALL["hidden_act"]._replace(default="gelu_new"),
        "norm_eps": Field(POSITIVE, 1e-5),
        "tie_word_embeddings": Field(FLAG, True),
        "scale_attn_weights": Field(FLAG, True),
        "scale_attn_by_inverse_layer_idx": Field(FLAG, False),
    },
    architecture=_architecture,
    spelling={
        "hidden_size": "n_embd",
        "intermediate_size": "n_inner",
        "num_hidden_layers": "n_layer",
        "num_attention_heads": "n_head",
        "max_position_embeddings": "n_positions",
        "hidden_act": "activation_function",
        "norm_eps": "layer_norm_epsilon",
    },
    required=("hidden_size", "num_hidden_layers", "num_attention_heads"),
    fixed={"reorder_and_upcast_attn": only(False)},
    without_effect=frozenset(
        "attn_pdrop embd_pdrop n_ctx n_special output_past predict_special_tokens resid_pdrop "
        "summary_activation summary_first_dropout "
        "summary_proj_to_labels summary_type summary_use_proj".split()
    ),
    ropes=_no_ropes,
    rope_fields=(),
    names=(
        (r"^model\.embed_tokens\.", "transformer.wte."),
        (r"^model\.embed_positions\.", "transformer.wpe."),
        (r"^model\.norm\.", "transformer.ln_f."),
        (r"^model\.layers\.", "transformer.h."),
        (r"\.input_layernorm\.", ".ln_1."),
        (r"\.post_attention_layernorm\.", ".ln_2."),
        (r"\.self_attn\.qkv_proj\.", ".attn.c_attn."),
        (r"\.self_attn\.o_proj\.", ".attn.c_proj."),
        (r"\.mlp\.up_proj\.", ".mlp.c_fc."),
        (r"\.mlp\.down_proj\.", ".mlp.c_proj."),
    ),
    older_names=((r"^(?=(wte|wpe|h|ln_f)\.)", "transformer."),),
    buffers=r"\.attn\.(masked_)?bias$",
)
