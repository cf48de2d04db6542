"""What was measured as one SVG: a bar of memory for each variant, and one of time."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any, Final

from metatune.bench.grid import BenchRow
from metatune.bench.table import MEMORY, MIB, TIME
from metatune.report.colours import INK, SOFT

WIDTH: Final = 880  # px, as everything below
MARGIN, NAMES = 20, 220
BAR, PITCH, HEAD, FOOT = 14, 22, 40, 14
NUMBER: Final = 66  # right of the longest bar, for its number
FONT: Final = 12
PARTS: Final = {"carry": "#0072b2", "parameters": "#e69f00", "activations": "#009e73"}
TITLE: Final = "One hypergradient, by how it is computed"


def cost_svg(rows: Sequence[BenchRow]) -> str:
    """Memory by its parts, and beside it time where it was measured, a panel for each case.

    Bars of a case share one scale; cases don't.

    Returns:
        A self-contained SVG document, `WIDTH` px wide, on its own light background.
    """
    # Here, as measuring needs no matplotlib.
    from matplotlib.patches import Patch

    from metatune.report.pictures import canvas

    timed = any(row.seconds is not None for row in rows)
    captions = [f"Bars: {MEMORY}."] + [f"Grey: {TIME}."] * timed
    groups = [(str(case), list(group)) for case, group in groupby(rows, lambda row: row.case)]
    foot = 92 + sum(HEAD + FOOT + PITCH * len(group) for _, group in groups)
    with canvas.style(FONT):
        figure = canvas.paper(WIDTH, foot + 17 * len(captions) + 8)
        canvas.write(figure, MARGIN, 20, TITLE, size=canvas.points(19), weight="bold")
        patches = [Patch(color=tint, label=name) for name, tint in PARTS.items()]
        canvas.keys(figure, MARGIN, 58, patches, len(patches))
        top = 92.0
        for case, group in groups:
            canvas.write(figure, MARGIN, top, case, size=canvas.points(14), weight="bold")
            _bars(figure, group, top + HEAD, timed)
            top += HEAD + FOOT + PITCH * len(group)
        for place, words in enumerate(captions):
            canvas.write(figure, MARGIN, foot + 17 * place, words, color=SOFT)
        return canvas.svg(figure, TITLE, " ".join(captions))


def _bars(figure: Any, rows: list[BenchRow], top: float, timed: bool) -> None:
    """The bars of one case, on top of each other."""
    from metatune.report.pictures import canvas

    left = MARGIN + NAMES
    room = (WIDTH - MARGIN - left) / (2 if timed else 1) - NUMBER
    places, height, thick = range(len(rows)), PITCH * len(rows), BAR / PITCH
    axes = canvas.panel(figure, left, top, room, height)
    starts = [0.0] * len(rows)
    for name, tint in PARTS.items():
        sizes = [max(0, getattr(row.memory, name)) / MIB for row in rows]
        axes.barh(places, sizes, thick, left=starts, color=tint)
        starts = [start + size for start, size in zip(starts, sizes, strict=True)]
    axes.set_yticks(places, [row.variant.name for row in rows], color=INK)
    _numbers(axes, starts, [f"{row.memory.temp / MIB:,.0f} MiB" for row in rows])
    axes.set_xlim(0, max(row.memory.temp for row in rows) / MIB)
    drawn = [axes]
    if timed:
        times = [row.plain_steps or 0.0 for row in rows]
        beside = canvas.panel(figure, left + room + NUMBER, top, room, height)
        beside.barh(places, times, thick, color=SOFT)
        _numbers(beside, times, [f"{t:.2f}" if t else "" for t in times])
        beside.set_xlim(0, max(times) or 1.0)
        beside.set_yticks([])
        drawn.append(beside)
    for each in drawn:
        each.set_ylim(len(rows) - 0.5, -0.5)
        each.set_xticks([])
        each.set_frame_on(False)
        each.tick_params(length=0, pad=8)


def _numbers(axes: Any, ends: Sequence[float], words: Sequence[str]) -> None:
    """A number at the end of each bar."""
    for place, (end, word) in enumerate(zip(ends, words, strict=True)):
        beside = {"textcoords": "offset points", "va": "center_baseline", "color": SOFT}
        axes.annotate(word, (end, place), (5, 0), annotation_clip=False, **beside)
