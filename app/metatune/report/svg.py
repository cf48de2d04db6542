"""An artefact's schedules as one SVG, for a README."""

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from metatune.artefact import Artefact
from metatune.artefact.document import held
from metatune.artefact.sections.section import BASE, Plotted
from metatune.report.artefact_readme import horizon, verdict
from metatune.report.scales import (
    CATEGORICAL,
    Frame,
    evenly,
    log_floor,
    padded,
    palette,
)
from metatune.report.svg_elements import (
    GRID,
    INK,
    MARGIN,
    SOFT,
    WIDTH,
    hexadecimal,
    line,
    page,
    path,
    text,
)

GUTTER = 28  # px between panels, as everything below
AXIS = 58  # left of a plot, for its labels
TOP, PLOT_HEIGHT = 96, 250
LEGEND_ROW = 19
LEGEND_ENTRIES = len(CATEGORICAL)  # of more curves, so many evenly spread ones are named
CHARACTER = 6.7  # a generous mean width at font size 12
CAPTION_COLUMNS = 118  # characters

PANELS = 3  # in a row
POINTS = 240  # of a curve: more than a panel can show apart
DASHED = (INK, ' stroke-dasharray="6 4"')


@dataclass(frozen=True)
class _Panel:
    """One plot: what it shows, on what scale, and how it is drawn."""

    title: str
    curves: Mapping[str, np.ndarray]
    reach: tuple[float, float]
    log: bool = False
    stacked: bool = False
    base: np.ndarray | None = None


def schedule_svg(artefact: Artefact, title: str) -> str:
    """The tuned schedules, the learning rates beside the base default, and the measured result.

    Args:
        artefact: what was tuned; each of its sections that moves over training gets a panel.
        title: stands on top.

    Returns:
        A self-contained SVG document, `WIDTH` px wide, on its own light background.
    """
    steps = evenly(artefact.horizon_steps, POINTS)
    panels = [
        _panel(section.plotted, curves, section.base(value, steps, artefact.horizon_steps))
        for section, value in held(artefact)
        if section.plotted is not None
        and (curves := section.curves(value, steps, artefact.horizon_steps))
    ]
    body, depth, top = [], 0.0, TOP
    for first in range(0, len(panels), PANELS):
        row = panels[first : first + PANELS]
        slot = (WIDTH - 2 * MARGIN - GUTTER * (len(row) - 1)) / len(row)
        for index, panel in enumerate(row):
            left = MARGIN + index * (slot + GUTTER)
            drawn, bottom = _draw(panel, (left, top), slot, np.array(steps), artefact.horizon_steps)
            body += drawn
            depth = max(depth, bottom)
        top = round(depth) + 2 * GUTTER
    caption = f"Tuned: {verdict(artefact.result)}. Horizon: {horizon(artefact)}."
    lines = textwrap.wrap(caption, CAPTION_COLUMNS)
    body += [
        text(MARGIN, depth + 26 + 19 * row, words, size=13, colour=INK)
        for row, words in enumerate(lines)
    ]
    height = round(depth + 26 + 19 * len(lines) + 4)
    return page(title, caption, body, height)


def _panel(plotted: Plotted, curves: Mapping[str, np.ndarray], base: np.ndarray | None) -> _Panel:
    """Curves on a scale that holds them all."""
    if plotted.scale == "share":
        return _Panel(plotted.title, curves, (0.0, 1.0), stacked=True)
    if plotted.scale == "linear":
        top = max(float(curve.max()) for curve in curves.values())
        return _Panel(plotted.title, curves, (0.0, 1.05 * top))
    floored = log_floor(np.stack([*([] if base is None else [base]), *curves.values()]))
    low, high = (float(v) for v in np.exp(padded(*np.log([floored.min(), floored.max()]))))
    shown = dict(zip(curves, floored[-len(curves) :], strict=True))
    if base is not None:
        base, shown = floored[0], {name: curve for name, curve in shown.items() if name != BASE}
    return _Panel(f"{plotted.title}, log scale", shown, (low, high), log=True, base=base)


def _draw(
    panel: _Panel, corner: tuple[float, float], slot: float, steps: np.ndarray, total: int
) -> tuple[list[str], float]:
    """The elements of a panel in a slot of the page, and where its legend ends."""
    left, top = corner
    frame = Frame(left + AXIS, top, left + slot, top + PLOT_HEIGHT, total, *panel.reach, panel.log)
    tints = [hexadecimal(tint) for tint in palette(len(panel.curves))]
    parts = [text(left, top - 20, panel.title, size=14, colour=INK, weight="600")]
    parts += _axes(frame)
    values = list(panel.curves.values())
    if panel.stacked:
        tops = np.vstack([np.zeros(len(steps)), np.cumsum(values, 0)])
        for under, over, tint in zip(tops[:-1], tops[1:], tints, strict=True):
            outline = [*frame.stairs(steps, over), *frame.stairs(steps, under)[::-1]]
            parts.append(f'<polygon points="{path(outline)}" fill="{tint}"/>')
    else:
        stroke = 2.2 if len(values) <= len(CATEGORICAL) else 1.4
        parts += [
            line(frame.stairs(steps, curve), tint, stroke)
            for curve, tint in zip(values, tints, strict=True)
        ]
    keys = [(name, tints[i]) for i, name in enumerate(panel.curves)]
    shown = [keys[i] for i in evenly(len(keys), LEGEND_ENTRIES)]
    if panel.base is not None:
        colour, dashes = DASHED
        parts.append(line(frame.stairs(steps, panel.base), colour, 1.8, dashes))
    return _with_legend(parts, frame, left, slot, shown, panel)


def _axes(frame: Frame) -> list[str]:
    parts = []
    for tick in frame.y_ticks():
        y = float(frame.y(tick))
        ends = np.array([[frame.left, y], [frame.right, y]])
        parts.append(line(ends, GRID, 1))
        parts.append(text(frame.left - 8, y + 4, f"{tick:g}", anchor="end"))
    for tick in frame.x_ticks():
        x = float(frame.x(tick))
        parts.append(line(np.array([[x, frame.bottom], [x, frame.bottom + 4]]), SOFT, 1))
        parts.append(text(x, frame.bottom + 18, f"{tick:g}", anchor="middle"))
    middle = (frame.left + frame.right) / 2
    parts.append(text(middle, frame.bottom + 36, "training step", anchor="middle"))
    return parts


def _with_legend(
    parts: list[str],
    frame: Frame,
    left: float,
    slot: float,
    keys: list[tuple[str, str]],
    panel: _Panel,
) -> tuple[list[str], float]:
    """Adds a legend in as many columns as its longest name leaves room for."""
    entries = [(name, tint, "") for name, tint in keys]
    if panel.base is not None:
        entries.insert(0, ("base default", *DASHED))
    widest = 34 + CHARACTER * max(len(name) for name, _, _ in entries)
    columns = max(1, int(slot // widest))
    top = frame.bottom + 60
    for place, (name, tint, dashes) in enumerate(entries):
        x = left + (place % columns) * slot / columns
        y = top + (place // columns) * LEGEND_ROW
        if panel.stacked:
            parts.append(f'<rect x="{x:g}" y="{y - 10}" width="20" height="12" fill="{tint}"/>')
        else:
            parts.append(line(np.array([[x, y - 4], [x + 20, y - 4]]), tint, 2.2, dashes))
        parts.append(text(x + 27, y, name, colour=INK))
    rows = -(-len(entries) // columns)
    if len(panel.curves) > len(keys):
        note = f"{len(keys)} of {len(panel.curves)} named; colours follow their order"
        parts.append(text(left, top + rows * LEGEND_ROW, note))
        rows += 1
    return parts, top + (rows - 1) * LEGEND_ROW
