"""Measured curves as one SVG: panels two by two, each with axes of its own."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from matplotlib.figure import Figure

from metatune.report.colours import CATEGORICAL
from metatune.report.pictures import canvas

WIDTH: Final = 880  # px, as everything below
MARGIN, GUTTER = 20, 28
AXIS: Final = 58  # left of a plot, for its labels
HEAD, PLOT_HEIGHT, LEGEND_ROW = 96, 230, 19
FONT: Final = 12
PANELS: Final = 2  # side by side
CAPTION_COLUMNS: Final = 104  # characters


@dataclass(frozen=True)
class Curve:
    """Points that belong together, in ascending order of x.

    Attributes:
        x: where it was measured.
        y: what was.
        theory: not measured but predicted: a dashed line without dots.
        stairs: a value holds up to the next one.
    """

    x: Sequence[float]
    y: Sequence[float]
    theory: bool = False
    stairs: bool = False


@dataclass(frozen=True)
class Panel:
    """One plot.

    Attributes:
        title: stands above it.
        x_label: stands below it.
        curves: by name.
        log_x: whether the horizontal axis is logarithmic; all values are above 0 then.
        log_y: the same of the vertical one.
    """

    title: str
    x_label: str
    curves: Mapping[str, Curve]
    log_x: bool = False
    log_y: bool = False


def line_chart(title: str, panels: Sequence[Panel], caption: str) -> str:
    """Panels in rows of two.

    Args:
        title: stands on top.
        panels: one or more.
        caption: stands below them.

    Returns:
        A self-contained SVG document, `WIDTH` px wide, on its own light background.
    """
    columns = min(len(panels), PANELS)
    slot = (WIDTH - 2 * MARGIN - GUTTER * (columns - 1)) / columns
    rows = [panels[first : first + columns] for first in range(0, len(panels), columns)]
    heights = [
        PLOT_HEIGHT + 62 + LEGEND_ROW * max(len(panel.curves) for panel in row) for row in rows
    ]
    lines = textwrap.wrap(caption, CAPTION_COLUMNS)
    foot = HEAD + sum(heights) + 2 * GUTTER * (len(rows) - 1)
    with canvas.style(FONT):
        figure = canvas.paper(WIDTH, foot + 12 + 19 * len(lines))
        canvas.write(figure, MARGIN, 20, title, size=canvas.points(19), weight="bold")
        top = float(HEAD)
        for row, height in zip(rows, heights, strict=True):
            for place, panel in enumerate(row):
                _draw(figure, panel, (MARGIN + place * (slot + GUTTER), top, slot))
            top += height + 2 * GUTTER
        for number, line in enumerate(lines):
            canvas.write(figure, MARGIN, foot + 19 * number, line, size=canvas.points(13))
        return canvas.svg(figure, title, caption)


def _draw(figure: Figure, panel: Panel, slot: tuple[float, float, float]) -> None:
    """A panel with its legend in a slot of the page: its left, top and width."""
    left, top, width = slot
    canvas.write(figure, left, top - 34, panel.title, size=canvas.points(14), weight="bold")
    axes = canvas.panel(figure, left + AXIS, top, width - AXIS, PLOT_HEIGHT)
    axes.grid(axis="y")
    axes.set_xlabel(panel.x_label)
    drawn = []
    for place, (name, curve) in enumerate(panel.curves.items()):
        (line,) = axes.plot(
            curve.x,
            curve.y,
            color=CATEGORICAL[place % len(CATEGORICAL)],
            lw=1.5,
            ls=(0, (4, 3)) if curve.theory else "-",
            drawstyle="steps-post" if curve.stairs else "default",
            marker="" if curve.theory or curve.stairs else "o",
            ms=4,
            label=name,
        )
        drawn.append(line)
    sides = (("x", axes.xaxis, panel.log_x), ("y", axes.yaxis, panel.log_y))
    for side, axis, log in sides:
        values = np.concatenate([np.asarray(getattr(c, side)) for c in panel.curves.values()])
        reach = canvas.padded(values, log=log)
        axes.set(**{f"{side}scale": "log" if log else "linear", f"{side}lim": reach})
        if log:
            canvas.log_axis(axis, *reach)
        else:
            canvas.linear_axis(axis, 5)
    canvas.keys(figure, left, top + PLOT_HEIGHT + 48, drawn, 1)
