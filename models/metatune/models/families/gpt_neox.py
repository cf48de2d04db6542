"""GPT-NeoX (Black et al., 2022) and Pythia: parallel residual, part of a head is rotated."""

from collections.abc import Mapping
from typing import Any

from metatune.models.architecture import Architecture, Layer
from metatune.models.family import ALL, WITHOUT_DROPOUT, Family, Ropes, base
from metatune.models.fields import FLAG, FULL, POSITIVE, Field, only
from metatune.models.rope_config import SECTIONS, SHARE, THETA, RopeFields, read_rope

OLDER = {THETA: ("rotary_emb_base", THETA), SHARE: ("rotary_pct", SHARE)}
"""What transformers 4 called the two, beside the section."""


def _ropes(path: str, given: Mapping[str, Any], context: int) -> Ropes:
    reads = RopeFields({THETA: 10000.0, SHARE: 0.25}, OLDER)
    rope = read_rope(path, given, context, reads)
    return rope if isinstance(rope, tuple) else {FULL: rope}


def _architecture(values: Mapping[str, Any], layers: tuple[Layer, ...]) -> Architecture:
    return Architecture(
        **base(values, layers),
        norm="layer",
        gated=False,
        fused="heads",
        qkv_bias=values["attention_bias"],
        output_bias=values["attention_bias"],
        mlp_bias=True,
        parallel_residual=values["use_parallel_residual"],
    )


GPT_NEOX = Family(
    model_type="gpt_neox",
    causal_class="GPTNeoXForCausalLM",
    fields={
        **ALL,
        "hidden_act": ALL["hidden_act"]._replace(default="gelu"),
        "norm_eps": Field(POSITIVE, 1e-5),
        "attention_bias": Field(FLAG, True),
        "use_parallel_residual": Field(FLAG, True),
    },
    architecture=_architecture,
    spelling={"norm_eps": "layer_norm_eps"},
    fixed={**WITHOUT_DROPOUT, "hidden_dropout": only(0)},
    without_effect=frozenset({"classifier_dropout"}),
    ropes=_ropes,
    rope_fields=(*SECTIONS, *(name for names in OLDER.values() for name in names)),
    names=(
        (r"^lm_head\.", "embed_out."),
        (r"^model\.embed_tokens\.", "gpt_neox.embed_in."),
        (r"^model\.norm\.", "gpt_neox.final_layer_norm."),
        (r"^model\.layers\.", "gpt_neox.layers."),
        (r"\.self_attn\.qkv_proj\.", ".attention.query_key_value."),
        (r"\.self_attn\.o_proj\.", ".attention.dense."),
        (r"\.mlp\.up_proj\.", ".mlp.dense_h_to_4h."),
        (r"\.mlp\.down_proj\.", ".mlp.dense_4h_to_h."),
    ),
    older_names=(
        (r"^lm_head\.", "embed_out."),
        (r"^(?=(embed_in|layers|final_layer_norm)\.)", "gpt_neox."),
    ),
    buffers=r"\.attention\.((masked_)?bias|rotary_emb\.inv_freq)$",
)
