"""The verdict: contestants, what they cost and how they did, and what of the schedules matters."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from metatune.report import verdict as words
from metatune.report.colours import CATEGORICAL, INK, SOFT
from metatune.report.commands import typed
from metatune.report.html.bars import DifferenceBar, differences
from metatune.report.html.courses import courses
from metatune.report.html.parts import (
    KEY_CHARACTERS,
    Chapter,
    Figure,
    FigureRow,
    Table,
    dashed,
    label,
    layout,
    log_axis,
    number,
    numbers,
)
from metatune.report.html.sources import Sources

SYMBOLS = ("circle", "square", "diamond", "cross", "triangle-up", "triangle-down", "x", "pentagon")
ROOM = 0.2
"""Decades beside the costs."""


def chapter(found: Sources) -> Chapter | None:
    """Against what a user would have done; or the command that finds out, where it can."""
    document = None if found.artefact is None else found.artefact.verdict
    title = "Against what you would have done"
    if document is None and not found.is_measured:
        return None
    if document is None:
        lines = [
            "Grids, random search and TPE weren't tried at the cost of this search. To hold what "
            "was tuned against them:"
        ]
        return Chapter("contest", title, lines, commands=[typed("verdict", found.path)])
    unit = document["unit"]
    rows = [FigureRow([_behind(document, unit)])]
    if costs := _costs(document, unit):
        rows.append(FigureRow([costs]))
    if course := courses(document):
        rows.append(FigureRow([course]))
    after = [f"{each['name']} took no part: {each['why']}" for each in document["refused"]]
    lines = words.lines(document)
    return Chapter("contest", title, lines, rows, [_table(document)], after=after)


def parts(found: Sources) -> Chapter | None:
    """What the gain is of; None where that wasn't looked at."""
    document = None if found.artefact is None else found.artefact.verdict
    held = (document or {}).get("parts")
    if document is None or not held:
        return None
    variants = sorted(held["variants"], key=lambda each: -_size(each["lost"]["mean"]))
    rows = [
        DifferenceBar(
            each["name"],
            each["lost"]["mean"],
            each["lost"]["low"],
            each["lost"]["high"],
            bool(each["lost"]["low"] and each["lost"]["low"] > 0),
            "" if each.get("share") is None else f"{each['share']:.0%} of the gain",
        )
        for each in variants
    ]
    gain = held["gain"]["mean"]
    figure = differences(
        "parts-lost",
        "Gain that is lost",
        rows,
        f"loss minus that as tuned ({document['unit']})",
        filled=True,
        caption="Bars are means in validation with 95 % intervals, each by itself; grey where "
        "the interval holds zero.",
    )
    lines = [] if gain is None else [f"Of a gain of {gain:.4f} in validation is lost:"]
    return Chapter("parts", "What of it", lines, [FigureRow([figure])])


def _behind(document: Mapping[str, Any], unit: str) -> Figure:
    """Each contestant's loss minus that of what was tuned."""
    default = {"name": "default", "behind_tuned": document["gain"], "words": "the recipe's own"}
    ordered = sorted(
        [default, *document["rivals"]], key=lambda each: _size(each["behind_tuned"]["mean"])
    )
    rows = []
    for each in ordered:
        behind = each["behind_tuned"]
        ends = behind["mean"], behind.get("low"), behind.get("high")
        more = each.get("words") or each.get("summary", "")
        rows.append(DifferenceBar(each["name"], *ends, bool(behind["settled"]), more))
    return differences(
        "contest-behind",
        "Behind what was tuned",
        rows,
        f"test loss minus tuned's ({unit})",
        caption="Right of the dashed line what was tuned is better. Bars are intervals that hold "
        "at all looks together; grey is what isn't told from zero.",
    )


def _costs(document: Mapping[str, Any], unit: str) -> Figure | None:
    """The same against what each search cost."""
    tuned = document["tuned"]
    rivals = [each for each in document["rivals"] if each.get("gradients")]
    if not tuned.get("gradients"):
        return None
    traces = [_point("tuned", tuned["gradients"], {"mean": 0.0}, "star", INK, 13)]
    for place, each in enumerate(rivals):
        if each["behind_tuned"]["mean"] is not None:
            colour = CATEGORICAL[place % len(CATEGORICAL)]
            symbol = SYMBOLS[place % len(SYMBOLS)]
            behind = each["behind_tuned"]
            traces.append(_point(each["name"], each["gradients"], behind, symbol, colour, 10))
    ends = [math.log10(cost) for cost in (tuned["gradients"], *(e["gradients"] for e in rivals))]
    gain = document["gain"]["mean"]
    default = [] if gain is None else [dashed("y", gain)]
    noted = [] if gain is None else [_note(gain)]
    axes = layout(
        "gradients that the search took (log)",
        f"test loss minus tuned's ({unit})",
        showlegend=True,
        shapes=[dashed("y", 0.0), *default],
        annotations=noted,
        xaxis={
            **log_axis(10**end for end in ends),
            "range": [number(min(ends) - ROOM), number(max(ends) + ROOM)],
        },
    )
    caption = (
        "Gradients of an inner step; a differentiated step counts as several. Each search had the "
        "same inner steps; the default took none."
    )
    title = "Outcome against cost"
    return Figure("contest-cost", title, traces, axes, 380, caption)


def _point(
    name: str, cost: float, behind: Mapping[str, Any], symbol: str, colour: str, size: int
) -> dict[str, Any]:
    mean, bars = behind["mean"], {}
    if behind.get("low") is not None and behind.get("high") is not None:
        bars["error_y"] = {
            "array": [number(behind["high"] - mean)],
            "arrayminus": [number(mean - behind["low"])],
            "symmetric": False,
            "thickness": 1.2,
            "width": 3,
        }
    return {
        "type": "scatter",
        "mode": "markers",
        "name": label(name, KEY_CHARACTERS),
        "meta": [label(name)],
        "x": [number(cost)],
        "y": numbers([mean]),
        "marker": {"size": size, "color": colour, "symbol": symbol},
        "hovertemplate": "%{meta[0]}<br>%{y:+.4f} at %{x:,.0f} gradients<extra></extra>",
        **bars,
    }


def _note(gain: float) -> dict[str, Any]:
    return {
        "text": "default",
        "x": 1,
        "xref": "paper",
        "xanchor": "right",
        "y": number(gain),
        "yanchor": "bottom",
        "showarrow": False,
        "font": {"color": SOFT},
    }


def _table(document: Mapping[str, Any]) -> Table:
    heads = ("contestant", "loss", "behind tuned", "interval", "trainings", "inner steps")
    heads = (*heads, "gradients", "chose")
    found = [
        ("tuned", document["tuned"], None),
        ("default", document["default"], document["gain"]),
        *((each["name"], each, each["behind_tuned"]) for each in document["rivals"]),
    ]
    ordered = sorted(found, key=lambda each: _order(each[1]["losses"]))
    return Table(heads, [_cells(*each) for each in ordered], words=(7,))


def _order(losses: Sequence[float | None]) -> tuple[float, float]:
    """By the share of the trainings that diverged, then by the mean of the others."""
    known = [loss for loss in losses if loss is not None]
    return 1 - len(known) / max(1, len(losses)), sum(known) / max(1, len(known))


def _cells(name: str, found: Mapping[str, Any], behind: Mapping[str, Any] | None) -> Sequence[str]:
    """The row of a contestant: its losses, how far it is behind, and what its search took."""
    losses, told = found["losses"], ("", "")
    known = [loss for loss in losses if loss is not None]
    shown = [f"{sum(known) / len(known):.4f}"] if known else []
    if len(known) < len(losses):
        shown.append(f"{len(losses) - len(known)} of {len(losses)} diverged")
    if behind is not None:
        told = ("diverged", "")
        if behind["mean"] is not None:
            ends = [behind.get(end) for end in ("low", "high")]
            between = " to ".join("any" if end is None else f"{end:+.4f}" for end in ends)
            told = (f"{behind['mean']:+.4f}{'*' * bool(behind['settled'])}", between)
    took = [f"{found[key]:,.0f}" if key in found else "" for key in words.COSTS]
    return (name, ", ".join(shown), *told, *took, str(found.get("words", "")))


def _size(mean: float | None) -> float:
    return math.inf if mean is None else mean
