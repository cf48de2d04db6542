"""Names that trainers have for the parameters of a Hugging Face checkpoint, a table for each.

A name of several parameters is a matrix that the trainer fuses. `{}` is the number of a layer.
"""

import re
from collections.abc import Collection, Mapping
from typing import Final

ATTENTION: Final = "model.layers.{}.self_attn."
FEED_FORWARD: Final = "model.layers.{}.mlp."
LAYER: Final = "model.layers.{}."

TORCHTITAN: Final = {
    "model.embed_tokens.weight": "tok_embeddings.weight",
    **{
        f"{ATTENTION}{x}_proj.{kind}": f"layers.{{}}.attention.qkv_linear.wqkv.{kind}"
        for x in "qkv"
        for kind in ("weight", "bias")
    },
    f"{ATTENTION}o_proj.weight": "layers.{}.attention.wo.weight",
    f"{ATTENTION}q_norm.weight": "layers.{}.attention.q_norm.weight",
    f"{ATTENTION}k_norm.weight": "layers.{}.attention.k_norm.weight",
    f"{FEED_FORWARD}gate_proj.weight": "layers.{}.feed_forward.w1.weight",
    f"{FEED_FORWARD}down_proj.weight": "layers.{}.feed_forward.w2.weight",
    f"{FEED_FORWARD}up_proj.weight": "layers.{}.feed_forward.w3.weight",
    f"{LAYER}input_layernorm.weight": "layers.{}.attention_norm.weight",
    f"{LAYER}post_attention_layernorm.weight": "layers.{}.ffn_norm.weight",
    "model.norm.weight": "norm.weight",
    "lm_head.weight": "lm_head.weight",
}
"""torchtitan 0.3.0, `models/llama3/state_dict_adapter.py`; its sizes fuse queries, keys, values."""

OLMO_CORE: Final = {
    "model.embed_tokens.weight": "embeddings.weight",
    **{
        f"{ATTENTION}{x}_proj.{kind}": f"blocks.{{}}.attention.w_{x}.{kind}"
        for x in "qkv"
        for kind in ("weight", "bias")
    },
    f"{ATTENTION}o_proj.weight": "blocks.{}.attention.w_out.weight",
    f"{ATTENTION}q_norm.weight": "blocks.{}.attention.q_norm.weight",
    f"{ATTENTION}k_norm.weight": "blocks.{}.attention.k_norm.weight",
    f"{FEED_FORWARD}gate_proj.weight": "blocks.{}.feed_forward.w1.weight",
    f"{FEED_FORWARD}down_proj.weight": "blocks.{}.feed_forward.w2.weight",
    f"{FEED_FORWARD}up_proj.weight": "blocks.{}.feed_forward.w3.weight",
    f"{LAYER}input_layernorm.weight": "blocks.{}.attention_norm.weight",
    f"{LAYER}post_attention_layernorm.weight": "blocks.{}.feed_forward_norm.weight",
    "model.norm.weight": "lm_head.norm.weight",
    "lm_head.weight": "lm_head.w_out.weight",
}
"""OLMo-core 3.0.0, `nn/hf/convert.py`: Llama and Qwen."""

OLMO_CORE_OLMO2: Final = {
    **{ours: theirs for ours, theirs in OLMO_CORE.items() if "layernorm" not in ours},
    f"{LAYER}post_attention_layernorm.weight": "blocks.{}.attention_norm.weight",
    f"{LAYER}post_feedforward_layernorm.weight": "blocks.{}.feed_forward_norm.weight",
}
"""The same for OLMo 2 and 3, which have no norm before a block."""

GEMMA_NORMS: Final = ("pre_feedforward_layernorm", "post_feedforward_layernorm")

OLMO_CORE_GEMMA: Final = {
    **OLMO_CORE,
    f"{LAYER}post_attention_layernorm.weight": "blocks.{}.post_attention_norm.weight",
    f"{LAYER}{GEMMA_NORMS[0]}.weight": "blocks.{}.feed_forward_norm.weight",
    f"{LAYER}{GEMMA_NORMS[1]}.weight": "blocks.{}.post_feed_forward_norm.weight",
}
"""The same for Gemma 2 and 3, which have norms before and after."""

MEGATRON: Final = {
    "model.embed_tokens.weight": "embedding.word_embeddings.weight",
    **{
        f"{ATTENTION}{x}_proj.{kind}": f"decoder.layers.{{}}.self_attention.linear_qkv.{kind}"
        for x in "qkv"
        for kind in ("weight", "bias")
    },
    f"{ATTENTION}o_proj.weight": "decoder.layers.{}.self_attention.linear_proj.weight",
    f"{ATTENTION}q_norm.weight": "decoder.layers.{}.self_attention.q_layernorm.weight",
    f"{ATTENTION}k_norm.weight": "decoder.layers.{}.self_attention.k_layernorm.weight",
    f"{FEED_FORWARD}gate_proj.weight": "decoder.layers.{}.mlp.linear_fc1.weight",
    f"{FEED_FORWARD}up_proj.weight": "decoder.layers.{}.mlp.linear_fc1.weight",
    f"{FEED_FORWARD}down_proj.weight": "decoder.layers.{}.mlp.linear_fc2.weight",
    f"{LAYER}input_layernorm.weight": (
        "decoder.layers.{}.self_attention.linear_qkv.layer_norm_weight"
    ),
    f"{LAYER}post_attention_layernorm.weight": (
        "decoder.layers.{}.mlp.linear_fc1.layer_norm_weight"
    ),
    "model.norm.weight": "decoder.final_layernorm.weight",
    "lm_head.weight": "output_layer.weight",
}
"""Megatron core 0.19.2, `GPTModel` with the layers of Transformer Engine: Llama, Qwen, Gemma 1.

As Megatron-Bridge 0.6.2 maps them, `models/llama` and so on."""

MEGATRON_GEMMA: Final = {
    **MEGATRON,
    f"{LAYER}post_attention_layernorm.weight": (
        "decoder.layers.{}.self_attention.linear_proj.post_layernorm.weight"
    ),
    f"{LAYER}{GEMMA_NORMS[0]}.weight": "decoder.layers.{}.mlp.linear_fc1.layer_norm_weight",
    f"{LAYER}{GEMMA_NORMS[1]}.weight": "decoder.layers.{}.mlp.linear_fc2.post_layernorm.weight",
}
"""The same for Gemma 2 and 3, with the norms that Megatron-Bridge gives them."""

TABLES: Final[Mapping[str, tuple[Mapping[str, str], ...]]] = {
    "torchtitan": (TORCHTITAN,),
    "olmo-core": (OLMO_CORE, OLMO_CORE_OLMO2, OLMO_CORE_GEMMA),
    "megatron": (MEGATRON, MEGATRON_GEMMA),
}
"""By target; the first that knows every parameter of a checkpoint, and of each layer, is taken."""

NUMBER: Final = re.compile(r"(?<=\.)\d+(?=\.)")


def names_of(target: str, parameters: Collection[str]) -> dict[str, list[str]] | None:
    """For each parameter of the trainer those of the checkpoint that it holds.

    Args:
        target: a key of `TABLES`.
        parameters: names of the Hugging Face checkpoint.

    Returns:
        None where no table of the target knows all of them.
    """
    for table in TABLES[target]:
        found: dict[str, list[str]] = {}
        for name in parameters:
            layer = NUMBER.search(name)
            theirs = table.get(NUMBER.sub("{}", name, count=1))
            if theirs is None:
                break
            found.setdefault(theirs.format(layer[0] if layer else ""), []).append(name)
        else:
            return found
    return None
