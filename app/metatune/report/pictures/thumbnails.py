"""Pictures for TensorBoard, made to be read at the size that it shows them at.

Every picture is over steps: the value of step t is drawn over the stretch from t to t + 1.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from metatune.report.colours import SOFT, kind_of_curve, tints
from metatune.report.pictures import canvas
from metatune.report.sampling import evenly, log_floor

WIDTH, HEIGHT = 840, 600  # pixels
FONT: Final = 26
"""Pixels of all text."""

SHOWN: Final = {"images": (350, 400), "time series": (301, 215)}
"""The room in pixels, across and down, that pages of TensorBoard 2.21 have for a picture at first;
it is scaled to fit. Measured with `scripts/measure_tensorboard.py`."""

LEFT, TOP, RIGHT, BOTTOM = 118, 88, 34, 176  # pixels around a plot
LEGENDS: Final = {3: 12, 2: 24}
"""Columns of a legend of two rows, and characters of a name in it; of longer names the ends are
shown, of more of them so many evenly spread ones."""
TITLE_CHARACTERS: Final = 56
"""Of longer titles their beginnings are shown."""
ROWS: Final = 12
"""Of more, the rows of a heat map are named by their kind."""


def heat_map(
    values: np.ndarray,
    row_labels: Sequence[str],
    title: str,
    bar_label: str,
    x_label: str = "inner step",
) -> np.ndarray:
    """A cell for each value, rows from the top, lighter for larger, with a colour bar.

    Of many rows those of a kind stand together, and the kinds are named.

    Args:
        values: finite numbers [rows, columns]; column t is step t.
        row_labels: a name for each row.
        title: stands above the plot.
        bar_label: what the values are, with their unit.
        x_label: what the columns are.

    Returns:
        sRGB, uint8 [`HEIGHT`, `WIDTH`, 3].

    Raises:
        ValueError: no value, a value that isn't finite, or not one label for each row.
    """
    if len(row_labels) != len(values):
        raise ValueError(
            f"row_labels: {len(row_labels)} for {len(values)} rows of values; give one for each row"
        )
    table = _curves(dict(enumerate(values)))
    labels = [_end(label.removesuffix(".weight"), 16) for label in row_labels]
    if len(labels) > ROWS:
        kinds = [kind_of_curve(label) for label in row_labels]
        order = sorted(range(len(kinds)), key=lambda row: (kinds.index(kinds[row]), row))
        table, labels = table[order], [_end(kinds[row], 12) for row in order]
    reach = float(table.min()), float(table.max())
    if reach[0] == reach[1]:
        reach = canvas.padded(reach)
    with canvas.style(FONT):
        figure = canvas.paper(WIDTH, HEIGHT)
        left = 40 + 15 * max(map(len, labels))
        axes = canvas.panel(figure, left, TOP, WIDTH - left - 130, HEIGHT - TOP - 96)
        axes.imshow(
            table,
            aspect="auto",
            interpolation="nearest",
            extent=(0, table.shape[1], len(table), 0),
            norm=Normalize(*reach),
            cmap="viridis",
        )
        runs = [(name, len(list(run))) for name, run in groupby(labels)]
        ends = np.cumsum([count for _, count in runs])
        middles = ends - np.array([count for _, count in runs]) / 2
        apart = len(table) * (FONT + 6) / (HEIGHT - TOP - 96)
        ticks: list[tuple[float, str]] = []
        for middle, (name, _) in zip(middles.tolist(), runs, strict=True):
            if not ticks or middle - ticks[-1][0] >= apart:
                ticks.append((middle, name))
        axes.set_yticks([at for at, _ in ticks], [name for _, name in ticks])
        for end in ends[:-1].tolist():
            axes.axhline(end, color="white", linewidth=1.5)
        canvas.linear_axis(axes.xaxis, 4, whole=True)
        axes.set_xlabel(x_label)
        axes.tick_params(length=4, pad=6)
        canvas.write(figure, 12, 12, _beginning(title))
        bar = canvas.panel(figure, WIDTH - 112, TOP, 26, HEIGHT - TOP - 96)
        across = figure.colorbar(axes.images[0], cax=bar)
        across.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
        canvas.linear_axis(bar.yaxis, 4)
        canvas.write(figure, WIDTH - 12, TOP - 36, bar_label, ha="right", color=SOFT)
        return canvas.pixels(figure)


def line_plot(
    series: Mapping[str, np.ndarray],
    title: str,
    y_label: str,
    *,
    log: bool = False,
    x_label: str = "inner step",
) -> np.ndarray:
    """A line for each series over the steps, with a legend; of many, those of a kind in its shades.

    Args:
        series: finite numbers [steps] by name, all of one length.
        title: stands above the plot.
        y_label: what the values are, with their unit.
        log: a log scale, of at most `LOG_DECADES` decades below the largest value.
        x_label: what the steps are.

    Returns:
        sRGB, uint8 [`HEIGHT`, `WIDTH`, 3].

    Raises:
        ValueError: no value, lengths that differ, a value that isn't finite, or a log scale
            without a value above 0.
    """
    values = _curves(series)
    if log:
        values = log_floor(values)
    reach = canvas.padded(values.ravel(), log=log)
    with canvas.style(FONT):
        figure, axes = _plot(title, y_label, x_label, values.shape[1], reach, log)
        found = tints(list(series))
        for curve, tint in zip(values, found, strict=True):
            canvas.steps(axes, curve, range(values.shape[1] + 1), color=tint.colour, lw=2.5)
        firsts = [tint for tint in found if tint.first]
        lines = [Line2D([], [], color=tint.key_colour, lw=5) for tint in firsts]
        _legend(figure, [tint.key for tint in firsts], lines)
        return canvas.pixels(figure)


def stacked_area(
    shares: Mapping[str, np.ndarray],
    title: str,
    y_label: str,
    *,
    x_label: str = "inner step",
) -> np.ndarray:
    """Areas on top of each other, the first at the bottom, with a legend.

    Args:
        shares: finite numbers of 0 or above [steps] by name, all of one length.
        title: stands above the plot.
        y_label: what the values are, with their unit.
        x_label: what the steps are.

    Returns:
        sRGB, uint8 [`HEIGHT`, `WIDTH`, 3].

    Raises:
        ValueError: no value, lengths that differ, or a value that is negative or isn't finite.
    """
    values = _curves(shares)
    if values.min() < 0:
        raise ValueError(f"shares: {values.min():g} is negative; allowed: 0 or above")
    tops = np.vstack([np.zeros(values.shape[1]), np.cumsum(values, 0)])
    with canvas.style(FONT):
        reach = (0.0, float(tops.max()) or 1.0)
        figure, axes = _plot(title, y_label, x_label, values.shape[1], reach, False)
        edges, found = range(values.shape[1] + 1), tints(list(shares))
        for under, over, tint in zip(tops[:-1], tops[1:], found, strict=True):
            canvas.steps(axes, over, edges, baseline=under, fill=True, color=tint.colour, lw=0)
        firsts = [tint for tint in found if tint.first]
        patches = [Patch(color=tint.key_colour) for tint in firsts]
        _legend(figure, [tint.key for tint in firsts], patches)
        return canvas.pixels(figure)


def _plot(
    title: str, y_label: str, x_label: str, steps: int, reach: tuple[float, float], log: bool
) -> tuple[Figure, Axes]:
    """Paper with all that a plot over steps has besides its data."""
    figure = canvas.paper(WIDTH, HEIGHT)
    axes = canvas.panel(figure, LEFT, TOP, WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM)
    axes.set_xlim(0, steps)
    axes.set_ylim(*reach)
    axes.grid(axis="y")
    if log:
        axes.set_yscale("log")
        canvas.log_axis(axes.yaxis, *reach)
    else:
        canvas.linear_axis(axes.yaxis, 4)
    canvas.linear_axis(axes.xaxis, 4, whole=True)
    axes.tick_params(length=4, pad=6)
    canvas.write(figure, 12, 12, _beginning(title))
    canvas.write(figure, 12, 48, y_label, color=SOFT)
    axes.set_xlabel(x_label, labelpad=2)
    return figure, axes


def _legend(figure: Figure, names: Sequence[str], handles: Sequence[Line2D | Patch]) -> None:
    """Names of some series in two rows below the plot."""
    ends = [name.removesuffix(".weight") for name in names]
    fits = max(map(len, ends)) <= LEGENDS[3]
    columns = 3 if fits else 2
    shown = evenly(len(names), 2 * columns)
    for place in shown:
        handles[place].set_label(_end(ends[place], LEGENDS[columns]))
    canvas.keys(figure, 16, HEIGHT - 84, [handles[place] for place in shown], columns)


def _beginning(title: str) -> str:
    """A title, or the beginning of one that is too long."""
    most = TITLE_CHARACTERS
    return title if len(title) <= most else title[: most - 1] + "…"


def _end(name: str, most: int) -> str:
    """A name, or the end of one that is too long."""
    return name if len(name) <= most else "…" + name[-most + 1 :]


def _curves(series: Mapping) -> np.ndarray:
    """The series as one array [series, steps], or an error that names what can't be drawn."""
    lengths = {name: np.shape(values) for name, values in series.items()}
    if not lengths or any(len(shape) != 1 or shape[0] == 0 for shape in lengths.values()):
        raise ValueError(f"nothing to draw: shapes {lengths}; give series of one value or more")
    if len(set(lengths.values())) > 1:
        raise ValueError(f"series of different lengths: {lengths}; give each a value for each step")
    for name, values in series.items():
        if not np.isfinite(values).all():
            raise ValueError(f"series {name!r} holds values that aren't finite; leave them out")
    return np.stack([np.asarray(values, np.float64) for values in series.values()])
