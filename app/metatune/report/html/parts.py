"""What a page is made of: chapters of words, figures and tables; all text is as it is, unescaped.

A figure is Plotly's JSON. Plotly reads a little HTML in its texts, so names go there by `label`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, Final, NamedTuple

from metatune.report.colours import GRID, INK, PAPER, SOFT

FONT: Final = "system-ui, -apple-system, Segoe UI, Roboto, Helvetica, Arial, sans-serif"
KEY_CHARACTERS: Final = 30
"""Of a name in a legend, at most: as wide as a phone."""
LEAST_DECADES: Final = 0.3
"""Of a logarithmic axis that has round numbers at its ticks."""
DIGITS: Final = 5
"""Of a number that is drawn."""


class Figure(NamedTuple):
    """One picture.

    Attributes:
        name: of its element, one on a page.
        title: stands above it.
        traces: of Plotly.
        layout: of Plotly.
        height: in px; it is as wide as the page.
        caption: stands below it.
    """

    name: str
    title: str
    traces: Sequence[Mapping[str, Any]]
    layout: Mapping[str, Any]
    height: int = 340
    caption: str = ""


class Scale(NamedTuple):
    """A scale of colours that figures of a row share, with a word for its ends and its middle."""

    colours: Sequence[str]
    words: Sequence[str]


class FigureRow(NamedTuple):
    """Figures side by side, as many as there is room for.

    Attributes:
        figures: one or more.
        narrow: whether they are small, and many.
        scale: of their colours.
    """

    figures: Sequence[Figure]
    narrow: bool = False
    scale: Scale | None = None


class Table(NamedTuple):
    """Rows of words and numbers.

    Attributes:
        heads: of the columns.
        rows: a word for each column; the first column names the row.
        words: columns besides the first that hold words, which stand to the left.
        code: those of them that hold what is to be typed.
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: Sequence[int] = ()
    code: Sequence[int] = ()


class Chapter(NamedTuple):
    """A part of a page.

    Attributes:
        name: of its element, one on a page.
        title: its head.
        lines: sentences.
        rows: figures.
        tables: after them.
        commands: to type.
        after: sentences below all else.
    """

    name: str
    title: str
    lines: Sequence[str] = ()
    rows: Sequence[FigureRow] = ()
    tables: Sequence[Table] = ()
    commands: Sequence[str] = ()
    after: Sequence[str] = ()


def label(name: str, most: int | None = None) -> str:
    """A name as Plotly shows it, whatever is in it.

    Args:
        name: of something.
        most: characters; of a longer one the beginning is shown.
    """
    if most is not None and len(name) > most:
        name = name[: most - 1] + "…"
    # Between dollar signs it would look for a formula, after a percent sign for a value.
    return escape(name, quote=False).replace("$", "&#36;").replace("%", "&#37;")


def number(value: float | None) -> float | None:
    """A number in few digits; None, a gap, of what isn't finite."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{DIGITS}g}")


def numbers(values: Iterable[float | None]) -> list[float | None]:
    """The same of several."""
    return [number(value) for value in values]


def layout(x: str, y: str, **more: Any) -> dict[str, Any]:
    """What all figures share.

    Args:
        x: what stands across, with its unit.
        y: what stands along.
        more: of the layout; `xaxis` and `yaxis` add to those here.
    """
    axes = {
        f"{side}axis": {
            "title": {"text": label(words), "standoff": 8},
            "gridcolor": GRID,
            "linecolor": SOFT,
            "zeroline": False,
            "ticks": "outside",
            "ticklen": 4,
            "automargin": True,
            **more.pop(f"{side}axis", {}),
        }
        for side, words in (("x", x), ("y", y))
    }
    return {
        "font": {"family": FONT, "size": 12, "color": INK},
        "paper_bgcolor": PAPER,
        "plot_bgcolor": PAPER,
        "margin": {"l": 48, "r": 12, "t": 8, "b": 40},
        "hovermode": "closest",
        "hoverlabel": {"align": "left", "namelength": -1},
        "showlegend": False,
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"},
        **axes,
        **more,
    }


def log_axis(values: Iterable[float | None]) -> dict[str, Any]:
    """A logarithmic axis with round numbers at its ticks.

    Args:
        values: that it shows; those that aren't above 0 aren't shown.
    """
    known = [value for value in values if value is not None and value > 0]
    if not known:
        return {"type": "log"}
    low, high = math.log10(min(known)), math.log10(max(known))
    if high - low < LEAST_DECADES:  # where no two of these may lie
        return {"type": "log", "nticks": 6}
    reach = high - low
    between = (1, 2, 3, 5, 7) if reach < 1 else (1, 2, 5) if reach < 2 else (1, 3)
    between = between if reach < 4 else (1,)
    powers = range(math.floor(low) - 1, math.ceil(high) + 1)
    ticks = [float(f"{digit}e{power}") for power in powers for digit in between]
    words = [f"{tick:,g}" if tick >= 1 else f"{tick:g}" for tick in ticks]
    return {"type": "log", "tickmode": "array", "tickvals": ticks, "ticktext": words}


def counting_axis(count: int) -> dict[str, Any]:
    """An axis of whole numbers from 0, with room beside its ends."""
    room = 0.03 * max(1, count)
    step = max(1, math.ceil(count / 10))
    return {"tick0": 0, "dtick": step, "range": [number(-room), number(count + room)]}


def dashed(axis: str, at: float, colour: str = SOFT) -> dict[str, Any]:
    """A dashed line through a whole figure at a value of `x` or `y`."""
    other = "y" if axis == "x" else "x"
    return {
        "type": "line",
        f"{axis}0": number(at),
        f"{axis}1": number(at),
        f"{other}0": 0,
        f"{other}1": 1,
        f"{other}ref": "paper",
        "line": {"color": colour, "width": 1, "dash": "dash"},
    }
