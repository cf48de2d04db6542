"""Long names and values cut to a width."""

import re
from typing import Final

GAP: Final = "…"
NAME: Final = re.compile(r"[^\s/.]+(\.[^\s/.]+){2,}")
"""A dotted name, as checkpoints have them."""

ENDING: Final = 2
"""Parts at a name's end that say what a parameter is: `q_proj.weight`."""


def shortened(text: str, longest: int) -> str:
    """`text` of at most `longest` characters, cut out of its middle.

    Of a dotted name whole parts go, the first before others, but for numbers and the last two: they
    tell the parameters of a model apart. Of a path the disk and the file stay.

    >>> shortened("model.layers.0.self_attn.q_proj.weight", 36)
    '…layers.0.self_attn.q_proj.weight'
    >>> shortened("model.layers.0.self_attn.q_proj.weight", 30)
    '…0.self_attn.q_proj.weight'
    >>> shortened("model.norm.weight", 30)
    'model.norm.weight'
    """
    if len(text) <= longest:
        return text
    if NAME.fullmatch(text):
        names = _with_parts_left_out(text.split("."))
        if fitting := [name for name in names if len(name) <= longest]:
            # What all begin with goes first: GPT-2's `attn.c_proj` isn't its `mlp.c_proj`.
            return max(fitting, key=lambda name: (name.startswith(GAP), len(name)))
        text = min(names, key=len, default=text)
    tail = longest // 2
    return text[: longest - tail - len(GAP)] + GAP + text[len(text) - tail :]


def _with_parts_left_out(parts: list[str]) -> list[str]:
    """The name without each stretch of parts that may go."""
    last = len(parts) - ENDING
    names = []
    for start in range(last):
        for stop in range(start + 1, last + 1):
            if any(part.isdigit() for part in parts[start:stop]):
                break
            names.append(f"{'.'.join(parts[:start])}{GAP}{'.'.join(parts[stop:])}")
    return names
