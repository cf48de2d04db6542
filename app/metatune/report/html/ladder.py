"""The ledger of a transfer: whether the gain survives on larger trainings."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from metatune.report import transfer as words
from metatune.report.colours import CATEGORICAL, SOFT
from metatune.report.commands import typed
from metatune.report.html.parts import (
    Chapter,
    Figure,
    FigureRow,
    Table,
    dashed,
    label,
    layout,
    log_axis,
    number,
)
from metatune.report.html.sources import Sources

HEADS: Final = (
    "rung",
    "parameters",
    "steps",
    "gain",
    "95 % interval",
    "kept",
    "over best",
    "predicted",
)


FOLLOWED: Final = ("adamw", "muon", "normuon", "muonh", "adamh")
"""Optimizers whose rates follow a size by the rule that is taken by default."""


def chapter(found: Sources) -> Chapter | None:
    """What a ladder came to; or the command that climbs one."""
    document = None if found.artefact is None else found.artefact.transfer
    title = "On larger trainings"
    if document is None and not found.is_measured:
        return None
    if document is None:
        lines = ["Whether the gain survives on larger models and longer trainings wasn't measured:"]
        command = typed("transfer", found.path, "--ladder", "all=2")
        settings = found.artefact.optimizer.settings if found.artefact is not None else {}
        kinds = [each["kind"] for each in settings.get("groups", [settings] if settings else [])]
        if others := [kind for kind in kinds if kind not in FOLLOWED]:
            command += " --rule none"
            lines = [
                f"{lines[0][:-1]}; no rule is taken by itself for {others[0]}, so as they are:"
            ]
        return Chapter("transfer", title, lines, commands=[command])
    told = words.lines(document)
    after = [
        "Gain: default minus tuned, both carried by the rule; kept: in that of the proxy; over "
        "best: over the best baseline at its best level.",
        *(line for line in words.beyond(document) if line not in told),
    ]
    figure = _gains(document)
    return Chapter("transfer", title, told, [FigureRow([figure])], [_table(document)], after=after)


def _gains(document: Mapping[str, Any]) -> Figure:
    """The gain over compute, with what was predicted of it."""
    rungs = document["rungs"]
    measured = [(rung["name"], rung["operations"], rung["gain"]) for rung in rungs]
    foretold = [
        (rung["name"], rung["operations"], {**rung["predicted"], "mean": rung["predicted"]["gain"]})
        for rung in rungs
        if rung["predicted"]
    ]
    farther = [
        (
            each.get("at") or f"{each['times']:,.3g} times",
            each["operations"],
            {**each, "mean": each["gain"]},
        )
        for each in document["farther"]
    ]
    traces = [
        _points("predicted beforehand", foretold, SOFT, "diamond-open"),
        _points("predicted beyond", farther, CATEGORICAL[1], "diamond"),
        _points("measured", measured, CATEGORICAL[0], "circle"),
    ]
    shown = [trace for trace in traces if trace["x"]]
    ends = [end for _, _, gain in measured for end in (gain["low"], gain["high"], gain["mean"])]
    known = [end for end in ends if end is not None] or [0.0]
    # Intervals of predictions may be as wide as nothing is known: they go beyond the figure.
    spread = max(known) - min(min(known), 0.0) or 1.0
    reach = [min(min(known), 0.0) - 0.35 * spread, max(known) + 0.6 * spread]
    axes = layout(
        "operations of a training (log)",
        f"gain ({document['unit']})",
        showlegend=True,
        shapes=[dashed("y", 0.0)],
        xaxis=log_axis(value for trace in shown for value in trace["x"]),
        yaxis={"range": [number(end) for end in reach]},
    )
    caption = "Bars are 95 % intervals; those of predictions may go beyond the figure."
    return Figure("transfer-gains", "Gain over compute", shown, axes, 380, caption)


def _points(
    name: str, rows: Sequence[tuple[str, float, Mapping[str, Any]]], colour: str, symbol: str
) -> dict[str, Any]:
    known = [(row, at, gain) for row, at, gain in rows if gain["mean"] is not None]
    sides = [
        (gain["high"] - gain["mean"], gain["mean"] - gain["low"])
        if gain["low"] is not None and gain["high"] is not None
        else (0.0, 0.0)
        for _, _, gain in known
    ]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [number(at) for _, at, _ in known],
        "y": [number(gain["mean"]) for _, _, gain in known],
        "error_y": {
            "array": [number(over) for over, _ in sides],
            "arrayminus": [number(under) for _, under in sides],
            "symmetric": False,
            "thickness": 1.5,
            "width": 4,
        },
        "marker": {"size": 10, "color": colour, "symbol": symbol},
        "text": [label(row) for row, _, _ in known],
        "hovertemplate": "%{text}, " + name + ": %{y:+.4f}<extra></extra>",
    }


def _table(document: Mapping[str, Any]) -> Table:
    return Table(HEADS, [_cells(rung) for rung in document["rungs"]])


def _cells(rung: Mapping[str, Any]) -> Sequence[str]:
    gain, over, predicted = rung["gain"], rung["over_best"], rung["predicted"]
    diverged = gain["mean"] is None or gain["low"] is None
    return (
        rung["name"],
        f"{rung['parameters']:,}",
        f"{rung['steps']:,}",
        "diverged" if gain["mean"] is None else f"{gain['mean']:+.4f}",
        "" if diverged else f"{gain['low']:+.4f} to {gain['high']:+.4f}",
        "" if rung["retention"] is None else f"{rung['retention']:.0%}",
        "" if over["mean"] is None else f"{over['mean']:+.4f}",
        ""
        if predicted is None
        else f"{predicted['low']:.4f} to {predicted['high']:.4f}: "
        + ("holds" if predicted["holds"] else "missed"),
    )
