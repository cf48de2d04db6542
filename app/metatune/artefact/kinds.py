"""What a parameter is for, by its checkpoint name: the same words for every family."""

import re
from collections.abc import Mapping
from typing import Final

KINDS: Final[Mapping[str, str]] = {
    "norm": r"(^|\.)(\w*norm\w*|ln_\w+)\.",
    "attention": r"\.(self_attn|attn|attention)\.",
    "mlp": r"\.mlp\.",
    "head": r"(^|\.)(lm_head|embed_out|auxiliary_head)\.",
    "embedding": r"(^|\.)(embed_tokens|embed_in|wte|wpe)\.",
}
"""Expressions that are searched for in names, the first first: `post_attention_layernorm` and
`self_attn.q_norm` are norms."""


def kind_of(name: str) -> str | None:
    """The kind of a parameter; None for a name that no family has.

    >>> kind_of("transformer.h.3.attn.c_proj.weight")
    'attention'
    """
    return next((kind for kind, found in KINDS.items() if re.search(found, name)), None)
