"""Plots as arrays of pixels, drawn with Pillow: a heat map, curves, stacked areas.

Every plot is over steps: the value of step t is drawn over the stretch from t to t + 1.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from metatune.report.scales import (
    Colour,
    Frame,
    colours,
    evenly,
    log_floor,
    padded,
    palette,
)

WIDTH = 900  # pixels
PLOT_HEIGHT = 320  # pixels
HEAT_MAP_ROW = (6, 18)  # pixels: smallest and largest height of a row
LEGEND_ENTRIES = 12  # of more series, so many evenly spread ones are named
SCALE = 2  # plots are drawn this much larger and then averaged down, for smooth lines
FONT = 13  # pixels
INK, FAINT, PAPER = (36, 41, 47), (225, 228, 232), (255, 255, 255)


class _Canvas:
    """White paper in pixels; drawn `SCALE` times larger."""

    def __init__(self, height: float):
        """Paper of `WIDTH` times `height` pixels."""
        size = (SCALE * WIDTH, SCALE * math.ceil(height))
        self.image = Image.new("RGB", size, PAPER)
        self.draw = ImageDraw.Draw(self.image)

    def text(self, x: float, y: float, text: str, anchor: str, size: int = FONT) -> None:
        font = ImageFont.load_default(size=SCALE * size)
        self.draw.text((SCALE * x, SCALE * y), text, fill=INK, font=font, anchor=anchor)

    def line(self, points: np.ndarray, colour: Colour, width: float = 1) -> None:
        path = [(SCALE * float(x), SCALE * float(y)) for x, y in points]
        self.draw.line(path, fill=colour, width=round(SCALE * width), joint="curve")

    def polygon(self, points: np.ndarray, colour: Colour) -> None:
        self.draw.polygon([(SCALE * float(x), SCALE * float(y)) for x, y in points], fill=colour)

    def pixels(self, frame: Frame, rgb: np.ndarray) -> None:
        """Fills the frame with the pixels `rgb` [h, w, 3], each as large as it must be."""
        size = (
            round(SCALE * (frame.right - frame.left)),
            round(SCALE * (frame.bottom - frame.top)),
        )
        picture = Image.fromarray(rgb).resize(size, Image.Resampling.NEAREST)
        self.image.paste(picture, (round(SCALE * frame.left), round(SCALE * frame.top)))

    def x_axis(self, frame: Frame, label: str) -> None:
        for tick in frame.x_ticks():
            x = float(frame.x(tick))
            self.line(np.array([[x, frame.bottom], [x, frame.bottom + 4]]), INK)
            self.text(x, frame.bottom + 7, f"{tick:g}", "ma")
        self.text((frame.left + frame.right) / 2, frame.bottom + 26, label, "ma")

    def y_grid(self, frame: Frame) -> None:
        for tick in frame.y_ticks():
            y = float(frame.y(tick))
            self.line(np.array([[frame.left, y], [frame.right, y]]), FAINT)
            self.text(frame.left - 8, y, f"{tick:g}", "rm")

    def legend(self, x: float, y: float, names: Sequence[str], tints: Sequence[Colour]) -> None:
        shown = evenly(len(names), LEGEND_ENTRIES)
        for place, index in enumerate(shown):
            column, row = place % 2, place // 2
            at, middle = x + column * (WIDTH - x) / 2, y + 20 * row + 8
            box = [[at, middle - 5], [at + 18, middle - 5], [at + 18, middle + 5], [at, middle + 5]]
            self.polygon(np.array(box), tints[index])
            self.text(at + 26, middle, names[index], "lm")

    def array(self) -> np.ndarray:
        return np.asarray(self.image.reduce(SCALE), np.uint8)


def heat_map(
    values: np.ndarray,
    row_labels: Sequence[str],
    title: str,
    bar_label: str,
    x_label: str = "inner step",
) -> np.ndarray:
    """A cell for each value, rows from the top, lighter for larger, with a colour bar.

    Args:
        values: finite numbers [rows, columns]; column t is step t.
        row_labels: a name for each row; of rows too thin for all names every other (third, ...)
            one is named.
        title: stands above the plot.
        bar_label: what the values are, with their unit.
        x_label: what the columns are.

    Returns:
        sRGB, uint8 [height, width, 3].

    Raises:
        ValueError: no value, a value that isn't finite, or not one label for each row.
    """
    if len(row_labels) != len(values):
        raise ValueError(
            f"row_labels: {len(row_labels)} for {len(values)} rows of values; give one for each row"
        )
    table = _curves(dict(enumerate(values)))
    low, high = float(table.min()), float(table.max())
    row = min(max(PLOT_HEIGHT // len(table), HEAT_MAP_ROW[0]), HEAT_MAP_ROW[1])
    font = ImageFont.load_default(size=FONT)
    left = 20 + min(max(font.getlength(label) for label in row_labels), 0.45 * WIDTH)
    frame = Frame(left, 48, WIDTH - 110, 48 + row * len(table), table.shape[1], 0, len(table))
    canvas = _Canvas(max(frame.bottom, 48 + 120) + 56)
    canvas.text(left, 10, title, "la", FONT + 3)
    # Where there are more columns than pixels, a pixel shows the step that it starts with.
    across = round(SCALE * (frame.right - frame.left))
    column = np.arange(across) * table.shape[1] // across
    fractions = (table - low) / (high - low or 1.0)
    canvas.pixels(frame, colours(fractions)[:, column])
    every = math.ceil((FONT + 2) / row)
    for index, label in list(enumerate(row_labels))[::every]:
        canvas.text(left - 8, frame.top + row * (index + 0.5), label, "rm")
    canvas.x_axis(frame, x_label)
    reach = (low, high) if high > low else padded(low, high)
    bar = Frame(WIDTH - 86, 48, WIDTH - 68, max(frame.bottom, 168), 1, *reach)
    canvas.pixels(bar, colours(np.linspace(1.0, 0.0, 256))[:, None])
    for tick in bar.y_ticks():
        canvas.text(bar.right + 6, float(bar.y(tick)), f"{tick:g}", "lm")
    canvas.text(WIDTH - 12, 26, bar_label, "ra")
    return canvas.array()


def line_plot(
    series: Mapping[str, np.ndarray],
    title: str,
    y_label: str,
    *,
    log: bool = False,
    x_label: str = "inner step",
) -> np.ndarray:
    """A line for each series over the steps, with a legend.

    Args:
        series: finite numbers [steps] by name, all of one length.
        title: stands above the plot.
        y_label: what the values are, with their unit.
        log: a log scale, of at most `LOG_DECADES` decades below the largest value.
        x_label: what the steps are.

    Returns:
        sRGB, uint8 [height, width, 3].

    Raises:
        ValueError: no value, lengths that differ, a value that isn't finite, or a log scale
            without a value above 0.
    """
    names, values = list(series), _curves(series)
    if log:
        values = log_floor(values)
        low, high = (float(v) for v in np.exp(padded(*np.log([values.min(), values.max()]))))
    else:
        low, high = padded(float(values.min()), float(values.max()))
    canvas, frame = _plot(names, values.shape[1], (low, high), title, y_label, x_label, log)
    canvas.y_grid(frame)
    for curve, tint in zip(values, palette(len(names)), strict=True):
        canvas.line(frame.stairs(np.arange(frame.steps), curve), tint, 2)
    return canvas.array()


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
        sRGB, uint8 [height, width, 3].

    Raises:
        ValueError: no value, lengths that differ, or a value that is negative or isn't finite.
    """
    names, values = list(shares), _curves(shares)
    if values.min() < 0:
        raise ValueError(f"shares: {values.min():g} is negative; allowed: 0 or above")
    tops = np.vstack([np.zeros(values.shape[1]), np.cumsum(values, 0)])
    reach = (0.0, float(tops.max()) or 1.0)
    canvas, frame = _plot(names, values.shape[1], reach, title, y_label, x_label, False)
    canvas.y_grid(frame)
    steps = np.arange(frame.steps)
    for index, tint in enumerate(palette(len(names))):
        under, over = frame.stairs(steps, tops[index]), frame.stairs(steps, tops[index + 1])
        canvas.polygon(np.concatenate([over, under[::-1]]), tint)
    return canvas.array()


def _plot(
    names: Sequence[str],
    steps: int,
    reach: tuple[float, float],
    title: str,
    y_label: str,
    x_label: str,
    log: bool,
) -> tuple[_Canvas, Frame]:
    """Paper with all that a plot over steps has besides its data."""
    frame = Frame(84, 58, WIDTH - 24, 58 + PLOT_HEIGHT, steps, *reach, log)
    rows = math.ceil(min(len(names), LEGEND_ENTRIES) / 2)
    canvas = _Canvas(frame.bottom + 56 + 20 * rows + 10)
    canvas.text(frame.left, 8, title, "la", FONT + 3)
    canvas.text(frame.left, 34, y_label, "la")
    canvas.x_axis(frame, x_label)
    canvas.legend(frame.left, frame.bottom + 52, names, palette(len(names)))
    return canvas, frame


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
