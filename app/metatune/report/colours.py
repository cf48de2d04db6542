"""Colours of all pictures, and which curve has which: its own, or that of its kind."""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from metatune.artefact.kinds import kind_of

CATEGORICAL: Final = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#d55e00",
    "#cc79a7",
    "#56b4e9",
    "#882255",
    "#999933",
    "#332288",
    "#44aa99",
    "#885522",
    "#6c757d",
)
"""The first are Okabe and Ito's for all kinds of colour vision, without the yellow, faint on white;
the others Tol's."""

INK: Final = "#24292f"
SOFT: Final = "#57606a"
GRID: Final = "#e4e8ec"
PAPER: Final = "#ffffff"

LOWER: Final = "#2166ac"
EQUAL: Final = "#f7f7f7"
HIGHER: Final = "#b35806"
"""Of what is below, at and above some value, of one lightness at the ends."""

APART: Final = len(CATEGORICAL) // 2
"""Of more curves than so many those of a kind share a colour, in shades."""

PALEST: Final = 0.45
"""Of a colour in white, of the first of many shades."""


class Tint(NamedTuple):
    """How a curve is drawn.

    Attributes:
        colour: as `#rrggbb`.
        key: what a legend says of it.
        key_colour: that the legend shows, unshaded.
        first: whether it is the first with this key.
    """

    colour: str
    key: str
    key_colour: str
    first: bool


def kind_of_curve(name: str) -> str:
    """What a curve is of: the kind of a parameter, else its name without the number of a layer.

    >>> kind_of_curve("model.layers.3.self_attn.q_proj.weight")
    'attention'
    >>> kind_of_curve("weight_decay model.layers.3.mlp")
    'weight_decay mlp'
    >>> kind_of_curve("model.layers.3"), kind_of_curve("code")
    ('model.layers', 'code')
    """
    first, space, rest = name.partition(" ")
    # Labels of groups are cut-off names, or kinds themselves.
    if space and kind_of(f".{first}.") is None:
        return f"{first} {kind_of_curve(rest)}"
    return kind_of(f".{first}.") or re.sub(r"\.\d+(?=\.|$)", "", name)


def tints(names: Sequence[str]) -> list[Tint]:
    """A colour for each of a few curves; of many, one for each kind, darker from first to last."""
    keys = list(names) if len(names) <= APART else [kind_of_curve(name) for name in names]
    members: dict[str, int] = {}
    found = []
    for key in keys:
        found.append((key, members.setdefault(key, 0)))
        members[key] += 1
    own = {key: CATEGORICAL[place % len(CATEGORICAL)] for place, key in enumerate(members)}
    return [
        Tint(_shade(own[key], place, members[key]), key, own[key], first=place == 0)
        for key, place in found
    ]


def mixed(colour: str, share: float) -> str:
    """So much of a colour in white."""
    channels = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return "#" + "".join(f"{round(255 + (value - 255) * share):02x}" for value in channels)


def _shade(colour: str, place: int, count: int) -> str:
    share = 1.0 if count == 1 else PALEST + (1 - PALEST) * place / (count - 1)
    return mixed(colour, share)
