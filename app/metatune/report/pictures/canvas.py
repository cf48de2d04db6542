"""Paper for pictures: the style that all share, and how they are written, the same bytes always."""

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, StepPatch
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator

from metatune.report.colours import GRID, INK, PAPER, SOFT

DPI: Final = 96
"""Pixels of an inch: a picture's sizes are told in pixels."""

STYLE: Final = {
    "axes.axisbelow": True,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": SOFT,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "figure.facecolor": PAPER,
    "font.family": "sans-serif",
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "metatune",
    "text.color": INK,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
}


def points(pixels: float) -> float:
    """A length in points, in which matplotlib measures text and lines."""
    return pixels * 72 / DPI


@contextmanager
def style(font: float) -> Iterator[None]:
    """Within, pictures are ours, whatever a user's matplotlibrc says.

    Args:
        font: its size in pixels.
    """
    size = points(font)
    sized = {key: size for key in ("font.size", "axes.titlesize", "legend.fontsize")}
    own: dict[str, Any] = {**STYLE, **sized, "xtick.labelsize": size, "ytick.labelsize": size}
    with matplotlib.style.context(["default", own]):
        yield


def paper(width: float, height: float) -> Figure:
    """White paper, sizes in pixels."""
    return Figure(figsize=(width / DPI, height / DPI), dpi=DPI)


def panel(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes in a rectangle in pixels, from the left and from the top of the paper."""
    across, down = (float(size) * DPI for size in figure.get_size_inches())
    box = (left / across, 1 - (top + height) / down, width / across, height / down)
    return figure.add_axes(box)


def write(figure: Figure, left: float, top: float, text: str, **how: Any) -> None:
    """A text whose upper left corner is at a place in pixels."""
    across, down = (float(size) * DPI for size in figure.get_size_inches())
    figure.text(left / across, 1 - top / down, text, va="top", parse_math=False, **how)


def steps(axes: Axes, values: np.ndarray, edges: Sequence[float] | np.ndarray, **how: Any) -> None:
    """A line of values that hold between edges; an area where there is a `baseline`.

    The axes keep their ranges: `Axes.stairs` looks for new ones, which takes as long as drawing.
    """
    axes.add_artist(
        StepPatch(values, np.asarray(edges), **{"baseline": None, "fill": False, **how})
    )


def log_axis(axis: Axis, low: float, high: float) -> None:
    """Labels of a logarithmic axis from `low` to `high`: powers of ten, or round numbers."""
    decades = np.log10(high / low)
    between = (1,) if decades > 4 else (1, 3) if decades > 2 else (1, 2, 5)
    ticks = LogLocator(subs=between, numticks=20).tick_values(low, high)
    ticks = [tick for tick in ticks if low <= tick <= high]
    if len(ticks) < 2:
        ticks = [t for t in MaxNLocator(4).tick_values(low, high) if low <= t <= high]
    if len(ticks) > 6:
        ticks = ticks[:: -(-len(ticks) // 6)]
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(FixedLocator([]))
    axis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:g}"))


def linear_axis(axis: Axis, most: int, *, whole: bool = False) -> None:
    """Labels of a linear axis: at most so many stretches between round numbers."""
    axis.set_major_locator(MaxNLocator(most, integer=whole, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:g}"))


def padded(values: Iterable[float], *, log: bool = False) -> tuple[float, float]:
    """The range of an axis: a twentieth beyond the values; some room where they are all equal."""
    known = np.asarray(list(values), np.float64)
    if log:
        known = np.log(known)
    low, high = float(known.min()), float(known.max())
    margin = 0.05 * (high - low) or (0.1 if log else 0.1 * abs(high) or 0.1)
    ends = (low - margin, high + margin)
    return (float(np.exp(ends[0])), float(np.exp(ends[1]))) if log else ends


def keys(
    figure: Figure, left: float, top: float, entries: Sequence[Line2D | Patch], columns: int
) -> None:
    """A legend whose upper left corner is at a place in pixels."""
    across, down = (float(size) * DPI for size in figure.get_size_inches())
    legend = figure.legend(
        handles=list(entries),
        loc="upper left",
        bbox_to_anchor=(left / across, 1 - top / down),
        ncols=columns,
        borderaxespad=0,
        borderpad=0,
        handlelength=1.4,
        handletextpad=0.5,
        columnspacing=1.4,
        labelspacing=0.35,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def svg(figure: Figure, title: str, description: str) -> str:
    """A self-contained SVG document.

    Args:
        figure: what is drawn.
        title: of the document.
        description: what it says, for those who can't see it.
    """
    FigureCanvasSVG(figure)
    text = io.StringIO()
    told = {"Title": title, "Description": description, "Date": None, "Creator": "metatune"}
    figure.savefig(text, format="svg", metadata=told)
    # Without what stands before it in a file, it can stand in a page as well.
    whole = text.getvalue()
    lines = whole[whole.index("<svg") :].splitlines()
    return "".join(f"{line.rstrip()}\n" for line in lines)


def pixels(figure: Figure) -> np.ndarray:
    """The picture as sRGB, uint8 [height, width, 3]."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
