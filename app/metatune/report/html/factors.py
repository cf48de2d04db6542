"""Factors of a base schedule as maps of colours: layers by windows, a map for each role.

At 32 layers and nine tensors in each, rows with names could not be read. So each role, such as
`self_attn.q_proj`, has a small map of its own whose rows are the layers; what is outside the layers
has one with its names.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from metatune.artefact.curves import value_at
from metatune.artefact.sections.section import ByKnot
from metatune.report.colours import EQUAL, HIGHER, LOWER
from metatune.report.html.parts import Figure, FigureRow, Scale, label, layout, number, numbers

LAYER: Final = re.compile(r"^(.*?)\.(\d+)(?=\.|$)\.?(.*)$")

TITLE: Final = "Factors of the recipe's own, by window"

FEW_ROWS: Final = 40
"""Up to so many, all stand in one map, by name."""
COLUMNS: Final = 48
"""Of factors that move along lines, or in more windows."""
LEAST_REACH: Final = math.log2(1.25)
"""Of the scale of colours, however near to 1 all factors are."""
MOST_REACH: Final = 10.0
"""The same, however far from 1 some are: beyond, all have the colour of the end."""
ROW, HEAD = 17, 78
"""Heights in px."""


class Cells(NamedTuple):
    """The columns of a map: where each begins and ends, in inner steps, and its name."""

    edges: Sequence[float]
    names: Sequence[str]
    at: Sequence[int]


def rows(name: str, view: ByKnot, horizon: int) -> list[FigureRow]:
    """One map of a few groups; else a map for each role, and one of what has no layer.

    Args:
        name: of the chapter.
        view: the factors at their knots, by group.
        horizon: inner steps of the training.
    """
    cells = _cells(view, horizon)
    groups = {
        group: np.array(
            [_value(view, np.asarray(curve, np.float64), at, horizon) for at in cells.at]
        )
        for group, curve in view.curves.items()
    }
    logs = np.log2(np.maximum(np.stack([*groups.values()]), 1e-12))
    reach = min(max(LEAST_REACH, float(np.abs(logs).max())), MOST_REACH)
    scale = _scale(reach)
    if len(groups) <= FEW_ROWS:
        named = dict(zip(_shortened(list(groups)), groups, strict=True))
        own = _map(f"{name}-factors", TITLE, named, groups, cells, reach)
        return [FigureRow([own], scale=scale)]
    roles: dict[tuple[str, str], dict[str, str]] = {}
    outside: dict[str, str] = {}
    for group in groups:
        if found := LAYER.match(group):
            prefix, layer, role = found.groups()
            roles.setdefault((prefix, role.removesuffix(".weight")), {})[layer] = group
        else:
            outside[group.removesuffix(".weight")] = group
    one = len({prefix for prefix, _ in roles}) == 1
    maps = []
    for place, ((prefix, role), layers) in enumerate(roles.items()):
        title = role if one and role else f"{prefix}.*.{role}".rstrip(".")
        ordered = {at: layers[at] for at in sorted(layers, key=int)}
        maps.append(_map(f"{name}-factors-{place}", title, ordered, groups, cells, reach))
    drawn = [FigureRow(maps, narrow=True)] if maps else []
    if outside:
        own = _map(f"{name}-factors-outside", "Outside the layers", outside, groups, cells, reach)
        drawn.append(FigureRow([own]))
    return [drawn[0]._replace(scale=scale), *drawn[1:]]


def _cells(view: ByKnot, horizon: int) -> Cells:
    """A column for each window; evenly spread ones of lines, or of more windows than fit."""
    starts = [min(horizon - 1, round(knot * horizon)) for knot in view.knots]
    if view.interpolation == "constant" and len(starts) <= COLUMNS:
        names = [f"window {place} of {len(starts)}" for place in range(1, len(starts) + 1)]
        return Cells([*starts, horizon], names, starts)
    count = min(COLUMNS, horizon)
    edges = [horizon * place / count for place in range(count + 1)]
    middles = [math.floor((a + b) / 2) for a, b in zip(edges[:-1], edges[1:], strict=True)]
    return Cells(edges, [f"step {at}" for at in middles], middles)


def _value(view: ByKnot, curve: np.ndarray, step: int, horizon: int) -> float:
    return float(value_at(view.knots, curve, view.interpolation, step, horizon))


def _map(
    name: str,
    title: str,
    named: Mapping[str, str],
    groups: Mapping[str, np.ndarray],
    cells: Cells,
    reach: float,
) -> Figure:
    """One map.

    Args:
        name: of the figure.
        title: stands above it.
        named: groups by what their row is called.
        groups: factors by group.
        cells: the columns.
        reach: of the scale, in powers of two.
    """
    table = [groups[group] for group in named.values()]
    words = [
        [
            f"{label(group)}<br>{cell}, steps {start:.0f} to {end:.0f}<br>× {value:.3g}"
            for cell, start, end, value in zip(
                cells.names, cells.edges[:-1], cells.edges[1:], groups[group], strict=True
            )
        ]
        for group in named.values()
    ]
    trace: dict[str, Any] = {
        "type": "heatmap",
        "x": numbers(cells.edges),
        "y": list(range(len(named))),
        "z": [numbers(np.log2(np.maximum(row, 1e-12)).tolist()) for row in table],
        "text": words,
        "hovertemplate": "%{text}<extra></extra>",
        "zmin": number(-reach),
        "zmax": number(reach),
        "colorscale": [[0, LOWER], [0.5, EQUAL], [1, HIGHER]],
        "showscale": False,
        "ygap": 1 if len(named) <= FEW_ROWS else 0,
        "xgap": 1 if len(cells.names) <= 12 else 0,
    }
    every = 1 if len(named) <= FEW_ROWS else math.ceil(len(named) / FEW_ROWS)
    shown = list(named)[::every]
    axes = layout(
        "inner step",
        "layer" if all(row.isdigit() for row in named) else "",
        xaxis={"range": [0, cells.edges[-1]], "showgrid": False, "nticks": 5},
        yaxis={
            "tickmode": "array",
            "tickvals": list(range(0, len(named), every)),
            "ticktext": [label(row) for row in shown],
            "range": [len(named) - 0.5, -0.5],
            "showgrid": False,
            "ticks": "",
            "tickfont": {"size": 11},
        },
    )
    height = HEAD + ROW * len(named) if len(named) <= FEW_ROWS else HEAD + ROW * FEW_ROWS
    return Figure(name, title, [trace], axes, height)


def _scale(reach: float) -> Scale:
    ends = (f"× {2**-reach:.2g}", "× 1: as in the recipe", f"× {2**reach:.3g}")
    return Scale((LOWER, EQUAL, HIGHER), ends)


def _shortened(names: Sequence[str]) -> list[str]:
    """Names without what those of layers begin with, where they stay apart."""
    short = [
        f"{found[2]}.{found[3]}".rstrip(".") if (found := LAYER.match(name)) else name
        for name in names
    ]
    short = [name.removesuffix(".weight") for name in short]
    return short if len(set(short)) == len(short) else list(names)
