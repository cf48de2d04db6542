"""Differences with intervals in rows, each named above its mark, so that long names fit a phone."""

import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

from metatune.report.colours import CATEGORICAL, INK, SOFT
from metatune.report.html.parts import Figure, dashed, label, layout, number

PITCH = 46
"""Of a row, in px: its name and its mark."""
NAME_CHARACTERS = 48
"""Of a name, in a row on a phone."""


class DifferenceBar(NamedTuple):
    """A row.

    Attributes:
        name: of it.
        mean: that was measured; None of what diverged.
        low: end of its interval; None for none.
        high: the other one.
        told: whether it is told from zero; pale where it isn't known to be.
        words: more, where one points at it.
    """

    name: str
    mean: float | None
    low: float | None
    high: float | None
    told: bool = True
    words: str = ""


def differences(
    name: str,
    title: str,
    rows: Sequence[DifferenceBar],
    axis: str,
    *,
    filled: bool = False,
    caption: str = "",
) -> Figure:
    """Rows from the top.

    Args:
        name: of the figure.
        title: stands above it.
        rows: what was measured.
        axis: what the differences are, with their unit.
        filled: a bar from zero for each; else a dot.
        caption: stands below it.
    """
    known = [(place, row) for place, row in enumerate(rows) if row.mean is not None]
    sides = [
        (row.high or 0.0) - (row.mean or 0.0) if row.high is not None else 0.0 for _, row in known
    ]
    under = [
        (row.mean or 0.0) - (row.low or 0.0) if row.low is not None else 0.0 for _, row in known
    ]
    colours = [CATEGORICAL[0] if row.told else SOFT for _, row in known]
    trace: dict[str, Any] = {
        "x": [number(row.mean) for _, row in known],
        "y": [place for place, _ in known],
        "text": [_words(row) for _, row in known],
        "hovertemplate": "%{text}<extra></extra>",
        "error_x": {
            "array": [number(side) for side in sides],
            "arrayminus": [number(side) for side in under],
            "symmetric": False,
            "thickness": 1.5,
            "width": 4,
            "color": INK if filled else SOFT,
        },
    }
    if filled:
        trace |= {"type": "bar", "orientation": "h", "width": 0.34, "textposition": "none"}
        trace["marker"] = {"color": colours}
    else:
        trace |= {"type": "scatter", "mode": "markers", "marker": {"size": 9, "color": colours}}
    diverged = "" if len(known) == len(rows) else "diverged"
    notes = [
        {
            "text": label(_cut(row.name)) + (f": {diverged}" if row.mean is None else ""),
            "x": 0,
            "xref": "paper",
            "xanchor": "left",
            "y": place - 0.22,
            "yanchor": "bottom",
            "showarrow": False,
            "align": "left",
            "bgcolor": "rgba(255,255,255,0.75)",
            "borderpad": 1,
        }
        for place, row in enumerate(rows)
    ]
    axes = layout(
        axis,
        "",
        annotations=notes,
        shapes=[dashed("x", 0.0)],
        xaxis={"rangemode": "tozero"},
        yaxis={
            "range": [len(rows) - 0.5, -0.75],
            "showticklabels": False,
            "showgrid": False,
            "ticks": "",
        },
        margin={"l": 12, "r": 16, "t": 8, "b": 40},
    )
    return Figure(name, title, [trace], axes, 70 + PITCH * len(rows), caption)


def _words(row: DifferenceBar) -> str:
    between = "" if row.low is None or row.high is None else f" ({row.low:+.4f} to {row.high:+.4f})"
    more = "".join(f"<br>{label(line)}" for line in textwrap.wrap(row.words, 60))
    return f"{label(row.name)}<br>{row.mean:+.4f}{between}{more}"


def _cut(name: str) -> str:
    return name if len(name) <= NAME_CHARACTERS else name[: NAME_CHARACTERS - 1] + "…"
