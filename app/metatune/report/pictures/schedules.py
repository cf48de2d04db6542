"""An artefact's schedules as one SVG, for a README or a notebook."""

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from metatune.artefact import Artefact
from metatune.artefact.document import held
from metatune.artefact.sections.section import BASE, Plotted
from metatune.report.artefact_readme import horizon, verdict
from metatune.report.colours import INK, Tint, tints
from metatune.report.pictures import canvas
from metatune.report.sampling import evenly, log_floor

WIDTH: Final = 880  # px, as everything below
MARGIN, GUTTER = 20, 28
AXIS: Final = 58  # left of a plot, for its labels
HEAD, PLOT_HEIGHT, LEGEND_ROW = 96, 250, 19
FONT: Final = 12
CHARACTER: Final = 7.5  # a generous mean width
CAPTION_COLUMNS: Final = 104  # characters
PANELS: Final = 3  # in a row
POINTS: Final = 240  # of a curve: more than a panel can show apart


@dataclass(frozen=True)
class _Panel:
    """One plot: what it shows, on what scale, and how it is drawn."""

    title: str
    curves: Mapping[str, np.ndarray]
    reach: tuple[float, float]
    log: bool = False
    stacked: bool = False
    base: np.ndarray | None = None

    @property
    def tints(self) -> list[Tint]:
        return tints(list(self.curves))

    def columns(self, slot: float) -> int:
        """Of its legend: as many as the longest name leaves room for."""
        widest = max(len(key) for key in (*(tint.key for tint in self.tints), "base default"))
        return max(1, int(slot // (40 + CHARACTER * widest)))

    def rows(self, slot: float) -> int:
        """Of its legend."""
        entries = sum(tint.first for tint in self.tints) + (self.base is not None)
        return -(-entries // self.columns(slot))


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
    rows = [panels[first : first + PANELS] for first in range(0, len(panels), PANELS)]
    slots = [(WIDTH - 2 * MARGIN - GUTTER * (len(row) - 1)) / len(row) for row in rows]
    heights = [
        PLOT_HEIGHT + 58 + LEGEND_ROW * max(panel.rows(slot) for panel in row)
        for row, slot in zip(rows, slots, strict=True)
    ]
    said = verdict(artefact.result, decided=artefact.verdict is not None)
    caption = f"Tuned: {said}. Horizon: {horizon(artefact)}."
    lines = textwrap.wrap(caption, CAPTION_COLUMNS)
    foot = HEAD + sum(heights) + 2 * GUTTER * (len(rows) - 1)
    with canvas.style(FONT):
        figure = canvas.paper(WIDTH, foot + 12 + 19 * len(lines))
        canvas.write(figure, MARGIN, 20, title, size=canvas.points(19), weight="bold")
        top = float(HEAD)
        edges = np.array([*steps, artefact.horizon_steps])
        for row, slot, height in zip(rows, slots, heights, strict=True):
            for place, panel in enumerate(row):
                left = MARGIN + place * (slot + GUTTER)
                _draw(figure, panel, (left, top, slot), edges)
            top += height + 2 * GUTTER
        for number, line in enumerate(lines):
            canvas.write(figure, MARGIN, foot + 19 * number, line, size=canvas.points(13))
        return canvas.svg(figure, title, caption)


def _panel(plotted: Plotted, curves: Mapping[str, np.ndarray], base: np.ndarray | None) -> _Panel:
    """Curves on a scale that holds them all."""
    if plotted.scale == "share":
        return _Panel(plotted.title, curves, (0.0, 1.0), stacked=True)
    if plotted.scale == "linear":
        top = max(float(curve.max()) for curve in curves.values())
        return _Panel(plotted.title, curves, (0.0, 1.05 * top or 1.0))
    floored = log_floor(np.stack([*([] if base is None else [base]), *curves.values()]))
    shown = dict(zip(curves, floored[-len(curves) :], strict=True))
    if base is not None:
        base, shown = floored[0], {name: curve for name, curve in shown.items() if name != BASE}
    reach = canvas.padded(floored.ravel(), log=True)
    return _Panel(f"{plotted.title}, log scale", shown, reach, log=True, base=base)


def _draw(
    figure: Figure, panel: _Panel, slot: tuple[float, float, float], edges: np.ndarray
) -> None:
    """A panel with its legend in a slot of the page: its left, top and width."""
    left, top, width = slot
    canvas.write(figure, left, top - 34, panel.title, size=canvas.points(14), weight="bold")
    axes = canvas.panel(figure, left + AXIS, top, width - AXIS, PLOT_HEIGHT)
    axes.set_xlim(0, edges[-1])
    axes.set_ylim(*panel.reach)
    axes.grid(axis="y")
    if panel.log:
        axes.set_yscale("log")
        canvas.log_axis(axes.yaxis, *panel.reach)
    else:
        canvas.linear_axis(axes.yaxis, 5)
    canvas.linear_axis(axes.xaxis, 5, whole=True)
    axes.set_xlabel("training step")
    found, entries = panel.tints, list[Line2D | Patch]()
    if panel.stacked:
        tops = np.vstack([np.zeros(len(edges) - 1), np.cumsum([*panel.curves.values()], 0)])
        for under, over, tint in zip(tops[:-1], tops[1:], found, strict=True):
            canvas.steps(axes, over, edges, baseline=under, fill=True, color=tint.colour, lw=0)
        entries += [Patch(color=tint.key_colour, label=tint.key) for tint in found if tint.first]
    else:
        thick = 1.6 if len(found) == sum(tint.first for tint in found) else 1.0
        for curve, tint in zip(panel.curves.values(), found, strict=True):
            canvas.steps(axes, curve, edges, color=tint.colour, lw=thick)
        entries += [
            Line2D([], [], color=tint.key_colour, lw=2, label=tint.key)
            for tint in found
            if tint.first
        ]
    if panel.base is not None:
        canvas.steps(axes, panel.base, edges, color=INK, lw=1.4, ls=(0, (4, 3)))
        dashed = Line2D([], [], color=INK, lw=1.4, ls=(0, (4, 3)), label="base default")
        entries.insert(0, dashed)
    if entries:
        below = top + PLOT_HEIGHT + 48
        canvas.keys(figure, left, below, entries, panel.columns(width))
