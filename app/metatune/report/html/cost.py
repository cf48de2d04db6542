"""What a search was expected to take, and what it took."""

import math
from typing import Any, Final

from metatune.report.colours import CATEGORICAL
from metatune.report.html.parts import Chapter, Figure, FigureRow, Table, dashed, layout, numbers
from metatune.report.html.sources import Sources

MIB: Final = 2**20


def chapter(found: Sources) -> Chapter | None:
    """Cost predicted and measured; None of what has no run folder."""
    if not found.metrics and found.expected is None:
        return None
    expected = (found.expected or {}).get("expected", {})
    measured = (found.expected or {}).get("measured", {})
    lines = []
    if not expected:
        lines.append("What a run is expected to take, and took, is kept when it ends.")
    tables = [_table(expected, measured)] if expected else []
    rows = [FigureRow([figure])] if (figure := _seconds(found, expected)) else []
    return Chapter("cost", "Cost, predicted and measured", lines, rows, tables)


def _table(expected: dict[str, Any], measured: dict[str, Any]) -> Table:
    step = "outer_step_seconds"
    rows = [("an outer step", *_pair(expected.get(step), measured.get(step), "{:,.1f} s"))]
    if "run_seconds" in expected:
        rows.append(("the whole run", f"{expected['run_seconds']:,.0f} s", "", ""))
    arrays = expected.get("device_bytes")
    if "device_bytes" in measured:
        rows.append(("memory of the device", *_bytes(arrays, measured["device_bytes"])))
    elif arrays is not None:
        whole = arrays + expected.get("held_bytes", 0)
        rows.append(("memory of the process", *_bytes(whole, measured.get("process_bytes"))))
    return Table(("", "predicted", "measured", "measured over predicted"), rows)


def _bytes(expected: float | None, measured: float | None) -> tuple[str, str, str]:
    foreseen, took = (None if value is None else value / MIB for value in (expected, measured))
    return _pair(foreseen, took, "{:,.0f} MiB")


def _pair(expected: float | None, measured: float | None, form: str) -> tuple[str, str, str]:
    told = ["" if value is None else form.format(value) for value in (expected, measured)]
    ratio = f"{measured / expected:.2f}" if expected and measured is not None else ""
    return told[0], told[1], ratio


def _seconds(found: Sources, expected: dict[str, Any]) -> Figure | None:
    """Seconds of each outer step; the last line, of no step, is left out."""
    taken = [line for line in found.metrics if line.get("objective") is not None]
    taken = [line for line in taken if line.get("seconds") is not None]
    if not taken:
        return None
    trace = {
        "type": "bar",
        "x": [line["step"] for line in taken],
        "y": numbers(line["seconds"] for line in taken),
        "marker": {"color": CATEGORICAL[0]},
        "hovertemplate": "point %{x}: %{y:.1f} s<extra></extra>",
    }
    across = {"tick0": 0, "dtick": max(1, math.ceil(taken[-1]["step"] / 10))}
    foreseen = expected.get("outer_step_seconds")
    shapes = [] if foreseen is None else [dashed("y", foreseen)]
    caption = "The first compiles." + " Dashed: as predicted." * (foreseen is not None)
    axes = layout("point of the search", "seconds", shapes=shapes, xaxis=across)
    return Figure("cost-seconds", "Seconds of each outer step", [trace], axes, 240, caption)
