"""Measured curves as one SVG: panels two by two, each with axes of its own."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from metatune.report.scales import linear_ticks, log_ticks, padded, palette
from metatune.report.svg_elements import (
    GRID,
    INK,
    MARGIN,
    SOFT,
    WIDTH,
    hexadecimal,
    line,
    page,
    text,
)

GUTTER, AXIS = 28, 58  # px: between panels; left of a plot, for its labels
TOP, PLOT_HEIGHT, LEGEND_ROW = 96, 230, 18
ROW_GAP = 56  # px, between a legend and the title of the panel below
PANELS = 2  # side by side
CAPTION_COLUMNS = 118  # characters
DOT = 3
DASHES = ' stroke-dasharray="6 4"'


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


@dataclass(frozen=True)
class _Axis:
    """From values to px."""

    first: float
    last: float
    low: float
    high: float
    log: bool

    def __call__(self, value: np.ndarray | float) -> np.ndarray:
        low, high, value = self.low, self.high, np.asarray(value, np.float64)
        if self.log:
            low, high, value = np.log(low), np.log(high), np.log(value)
        return self.first + (value - low) / (high - low) * (self.last - self.first)

    def ticks(self) -> list[float]:
        """Where there are labels."""
        return (log_ticks if self.log else linear_ticks)(self.low, self.high)


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
    body, top, depth = [], TOP, 0.0
    for index, panel in enumerate(panels):
        column = index % columns
        if index and not column:
            top = depth + ROW_GAP
        drawn, bottom = _draw(panel, MARGIN + column * (slot + GUTTER), slot, top)
        body += drawn
        depth = max(depth, bottom)
    lines = textwrap.wrap(caption, CAPTION_COLUMNS)
    body += [
        text(MARGIN, depth + 26 + 19 * row, words, size=13, colour=INK)
        for row, words in enumerate(lines)
    ]
    return page(title, caption, body, round(depth + 26 + 19 * len(lines) + 4))


def _draw(panel: Panel, left: float, slot: float, top: float) -> tuple[list[str], float]:
    """The elements of a panel in a slot of the page, and where its legend ends."""
    bottom = top + PLOT_HEIGHT
    across = _axis([c.x for c in panel.curves.values()], (left + AXIS, left + slot), panel.log_x)
    along = _axis([c.y for c in panel.curves.values()], (bottom, top), panel.log_y)
    parts = [text(left, top - 20, panel.title, size=14, colour=INK, weight="600")]
    for tick in along.ticks():
        y = float(along(tick))
        parts.append(line(np.array([[left + AXIS, y], [left + slot, y]]), GRID, 1))
        parts.append(text(left + AXIS - 8, y + 4, f"{tick:g}", anchor="end"))
    for tick in across.ticks():
        x = float(across(tick))
        parts.append(line(np.array([[x, bottom], [x, bottom + 4]]), SOFT, 1))
        parts.append(text(x, bottom + 18, f"{tick:g}", anchor="middle"))
    middle = left + (AXIS + slot) / 2
    parts.append(text(middle, bottom + 36, panel.x_label, anchor="middle"))
    legend = bottom + 60
    tints = map(hexadecimal, palette(len(panel.curves)))
    for place, ((name, curve), tint) in enumerate(zip(panel.curves.items(), tints, strict=True)):
        points = np.stack([across(np.array(curve.x)), along(np.array(curve.y))], -1)
        y, dashes = legend + place * LEGEND_ROW, DASHES if curve.theory else ""
        key = np.array([[left, y - 4], [left + 20, y - 4]])
        parts += [line(key, tint, 2, dashes), text(left + 27, y, name, colour=INK)]
        parts.append(line(_stairs(points) if curve.stairs else points, tint, 2, dashes))
        if not curve.theory and not curve.stairs:
            parts += [_dot(x, y, tint) for x, y in points]
    return parts, legend + (len(panel.curves) - 1) * LEGEND_ROW


def _axis(values: Sequence[Sequence[float]], ends: tuple[float, float], log: bool) -> _Axis:
    found = np.concatenate([np.asarray(some, np.float64) for some in values])
    low, high = float(found.min()), float(found.max())
    if log:
        low, high = (float(np.exp(end)) for end in padded(np.log(low), np.log(high)))
    else:
        low, high = padded(low, high)
    return _Axis(*ends, low, high, log)


def _stairs(points: np.ndarray) -> np.ndarray:
    corners = np.stack([points[1:, 0], points[:-1, 1]], -1)
    return np.insert(points, np.arange(1, len(points)), corners, axis=0)


def _dot(x: float, y: float, tint: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{DOT}" fill="{tint}"/>'
