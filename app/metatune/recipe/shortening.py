"""Long names and values cut to a width."""

from typing import Final

GAP: Final = "…"


def shortened(text: str, longest: int) -> str:
    """`text` of at most `longest` characters, cut out of its middle.

    Both ends tell one from another: the layer and the matrix of a parameter, the disk and the file
    of a path.

    >>> shortened("model.layers.0.self_attn.q_proj.weight", 30)
    'model.layers.0…q_proj.weight'
    >>> shortened("model.norm.weight", 30)
    'model.norm.weight'
    """
    if len(text) <= longest:
        return text
    tail = longest // 2
    head = longest - tail - len(GAP)
    front, back = text[:head], text[len(text) - tail :]
    # Of a dotted name whole parts stay, if they are most of what could.
    if "." in front and "." in back and " " not in text and "/" not in text:
        whole = front if text[head] == "." else front[: front.rindex(".")]
        rest = back if text[len(text) - tail - 1] == "." else back[back.index(".") + 1 :]
        if 2 * (len(whole) + len(rest)) >= longest:
            return whole + GAP + rest
    return front + GAP + back
