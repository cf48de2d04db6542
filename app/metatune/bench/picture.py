"""What was measured as one SVG: a bar of memory for each variant, and one of time."""

from collections.abc import Sequence
from itertools import groupby

from metatune.bench.grid import BenchRow
from metatune.bench.table import MEMORY, MIB, TIME
from metatune.report.svg_elements import INK, MARGIN, SOFT, WIDTH, page, text

NAMES = 220  # px, as everything below
BAR, PITCH, HEAD = 14, 22, 40
NUMBER = 66  # right of the longest bar, for its number
PARTS = {"carry": "#0072b2", "parameters": "#e69f00", "activations": "#009e73"}
TIME_TINT = SOFT
TITLE = "One hypergradient, by how it is computed"


def cost_svg(rows: Sequence[BenchRow]) -> str:
    """Memory by its parts, and beside it time where it was measured, a panel for each case.

    Bars of a case share one scale; cases don't.

    Returns:
        A self-contained SVG document, `WIDTH` px wide, on its own light background.
    """
    timed = any(row.seconds is not None for row in rows)
    captions = [f"Bars: {MEMORY}."] + [f"Grey: {TIME}."] * timed
    body, y = _legend(), 92.0
    for case, group in groupby(rows, lambda row: row.case):
        body.append(text(MARGIN, y + 16, str(case), size=14, colour=INK, weight="600"))
        y += HEAD
        drawn = list(group)
        body += _bars(drawn, y, timed)
        y += PITCH * len(drawn) + 14
    body += [text(MARGIN, y + 14 + 17 * place, words) for place, words in enumerate(captions)]
    height = round(y + 14 + 17 * len(captions))
    return page(TITLE, " ".join(captions), body, height)


def _legend() -> list[str]:
    parts, x = [], float(MARGIN)
    for name, tint in PARTS.items():
        parts += [_bar(x, 56, 20, tint), text(x + 26, 68, name, colour=INK)]
        x += 130
    return parts


def _bars(rows: list[BenchRow], top: float, timed: bool) -> list[str]:
    """The bars of one case, on top of each other."""
    left = MARGIN + NAMES
    room = (WIDTH - MARGIN - left) / (2 if timed else 1) - NUMBER
    most = max(row.memory.temp for row in rows)
    longest = max((row.plain_steps or 0.0 for row in rows), default=0.0)
    parts = []
    for place, row in enumerate(rows):
        y = top + PITCH * place
        parts.append(text(left - 10, y + 11, row.variant.name, colour=INK, anchor="end"))
        x = float(left)
        for name, tint in PARTS.items():
            length = room * max(0, getattr(row.memory, name)) / most
            parts.append(_bar(x, y, length, tint))
            x += length
        parts.append(text(x + 6, y + 11, f"{row.memory.temp / MIB:,.0f} MiB"))
        if row.plain_steps is not None:
            start, length = left + room + NUMBER, room * row.plain_steps / longest
            parts.append(_bar(start, y, length, TIME_TINT))
            parts.append(text(start + length + 6, y + 11, f"{row.plain_steps:.2f}"))
    return parts


def _bar(x: float, y: float, length: float, tint: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{length:.1f}" height="{BAR}" fill="{tint}"/>'
