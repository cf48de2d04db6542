"""What every SVG of ours is made of: the page, text, lines."""

from collections.abc import Iterable, Sequence
from xml.sax.saxutils import escape

import numpy as np

from metatune.report.scales import Colour

WIDTH = 880  # px, as everything below
MARGIN = 20
INK, SOFT, GRID, EDGE = "#24292f", "#57606a", "#e4e8ec", "#d0d7de"


def page(title: str, caption: str, body: Iterable[str], height: int) -> str:
    """A self-contained document on its own light background.

    Args:
        title: stands on top.
        caption: what the picture says, for those who can't see it.
        body: its elements.
        height: in px; the width is `WIDTH`.
    """
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
            f'width="{WIDTH}" height="{height}" role="img" aria-labelledby="title desc" '
            'font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif">',
            f'<title id="title">{escape(title)}</title>',
            f'<desc id="desc">{escape(caption)}</desc>',
            f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8" '
            f'fill="#ffffff" stroke="{EDGE}"/>',
            text(MARGIN, 36, title, size=19, colour=INK, weight="600"),
            *body,
            "</svg>\n",
        ]
    )


def line(points: np.ndarray, colour: str, width: float, dashes: str = "") -> str:
    """A line through points [n, 2]; `dashes` is a further attribute of the element."""
    return (
        f'<polyline points="{path(points)}" fill="none" stroke="{colour}" '
        f'stroke-width="{width:g}" stroke-linejoin="round"{dashes}/>'
    )


def path(points: np.ndarray | Sequence[np.ndarray]) -> str:
    """The points of a line or a polygon."""
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def text(
    x: float,
    y: float,
    text: str,
    *,
    size: int = 12,
    colour: str = SOFT,
    anchor: str = "start",
    weight: str = "400",
) -> str:
    """A line of text; `y` is its base line."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}" '
        f'text-anchor="{anchor}" font-weight="{weight}">{escape(text)}</text>'
    )


def hexadecimal(colour: Colour) -> str:
    """A colour as SVG says it."""
    return "#" + "".join(f"{channel:02x}" for channel in colour)
