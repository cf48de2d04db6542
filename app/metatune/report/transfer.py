"""A ladder for people: what it is about to take, and what it came to."""

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from metatune.report.fitting import Fitting, Pieces

COLUMNS = (
    "rung",
    "parameters",
    "steps",
    "default",
    "tuned",
    "gain",
    "95 %",
    "kept",
    "rates alone",
    "mixture alone",
    "by update",
    "of a search",
    "over best",
    "level",
    "order",
    "predicted",
)
PARTS = ("rates_gain", "mixture_gain", "by_update_gain")


def table(document: Mapping[str, Any]) -> RenderableType:
    """The rungs, what is to be expected beyond them, and the verdict.

    Args:
        document: a `transfer.json`.
    """
    rows, blocks = Table(*COLUMNS, box=None, pad_edge=False), []
    for column in rows.columns:
        column.no_wrap = True
    for rung in document["rungs"]:
        name, *cells = _cells(rung)
        rows.add_row(name, *cells)
        blocks.append(Text(name, "bold"))
        numbers = zip(COLUMNS[1:], cells, strict=True)
        blocks.append(Pieces([f"{column} {cell}" for column, cell in numbers if cell]))
    about = (
        f"rule {document['rule']}, {document['seeds']} seeds, {document['unit']}. gain: default "
        "minus tuned, both carried; by update: the gain where tuned curves are read by update "
        "instead of by share of the training; of a search: the gain in that of a search there; "
        "over best: over the best baseline at its best level; level: the best of the tuned rates; "
        "order: of all candidates, by the proxy's (Spearman)"
    )
    return Group(
        Text.assemble("transfer: ", (document["verdict"], "bold")),
        Text(about, "dim"),
        Fitting((rows, Group(*blocks))),
        *(Text(line) for line in beyond(document)),
    )


def beyond(document: Mapping[str, Any]) -> list[str]:
    """What is to be expected of larger trainings, a line each."""
    return [f"{_where(each)}: " + _expected(each) for each in document["farther"]]


def lines(document: Mapping[str, Any]) -> list[str]:
    """A ledger in three lines: the verdict, what it covers, what is to be expected beyond."""
    rungs = document["rungs"]
    names = ", ".join(rung["name"] for rung in rungs)
    made = [rung["predicted"]["holds"] for rung in rungs if rung["predicted"]]
    told = f"; {sum(made)} of {len(made)} predictions held" if made else ""
    covers = (
        f"measured by {document['seeds']} seeds at {names}, up to {rungs[-1]['parameters']:,} "
        f"parameters and {max(rung['steps'] for rung in rungs):,} steps, carried by the rule "
        f"{document['rule']}{told}"
    )
    named = [each for each in document["farther"] if each.get("at")]
    told = beyond({"farther": named or document["farther"][:1]})
    return [document["verdict"], covers, *told]


def plan(ladder: Any, left: float) -> list[str]:
    """What a climb takes: its rungs, and the work that is left.

    Args:
        ladder: of `metatune.ladder.climb`.
        left: work that isn't done, in trainings of the proxy.
    """
    names = ", ".join(step.rung.name for step in ladder.steps)
    counts = sorted({len(step.candidates) for step in ladder.steps})
    each = " to ".join(map(str, counts[:: max(1, len(counts) - 1)]))
    count = sum(len(step.candidates) for step in ladder.steps) * len(ladder.seeds)
    largest = max(ladder.work(step) for step in ladder.steps)
    return [
        f"rungs: {names}; at each {each} candidates and {len(ladder.seeds)} "
        f"seeds, {count} trainings in all, by the rule {ladder.rule}",
        f"left: as long as {left:,.0f} trainings of the proxy; one of the largest rung takes "
        f"{largest:,.0f}",
    ]


def _cells(rung: Mapping[str, Any]) -> list[str]:
    losses = {name: _mean(values) for name, values in rung["losses"].items()}
    gain, over = rung["gain"], rung["over_best"]
    predicted = rung["predicted"]
    return [
        rung["name"],
        f"{rung['parameters']:,}",
        f"{rung['steps']:,}",
        _number(losses["default"], "{:.4f}"),
        _number(losses["tuned"], "{:.4f}"),
        _number(gain["mean"], "{:+.4f}"),
        f"{_number(gain['low'], '{:+.4f}')} to {_number(gain['high'], '{:+.4f}')}",
        "" if rung["retention"] is None else f"{100 * rung['retention']:.0f} %",
        *(
            "" if rung.get(part) is None else _number(rung[part]["mean"], "{:+.4f}")
            for part in PARTS
        ),
        "" if rung.get("of_search") is None else f"{100 * rung['of_search']:.0f} %",
        f"{_number(over['mean'], '{:+.4f}')} ({rung['best']})",
        f"x{rung['level']:g}",
        "" if rung["order"] is None else f"{rung['order']:.2f}",
        "" if predicted is None else _predicted(predicted),
    ]


def _part(gain: Mapping[str, Any] | None) -> str:
    return "" if gain is None else _number(gain["mean"], "{:+.4f}")


def _predicted(predicted: Mapping[str, Any]) -> str:
    word = "holds" if predicted["holds"] else "missed"
    return f"{predicted['low']:.4f} to {predicted['high']:.4f}: {word}"


def _where(each: Mapping[str, Any]) -> str:
    times = f"{each['times']:,.3g} times the largest rung's compute"
    if not each.get("at"):
        return f"at {times}"
    return f"at {each['at']}, {each['steps']:,} steps ({times}; predicted {each['made']})"


def _expected(each: Mapping[str, Any]) -> str:
    return (
        f"a gain of {each['gain']:.4f} is predicted, {each['low']:.4f} to {each['high']:.4f}"
        + _bent(each)
    )


def _bent(each: Mapping[str, Any]) -> str:
    return "" if each["line"] else " (by parameters and tokens: the rungs refuse a line)"


def _mean(values: Any) -> float | None:
    return None if None in values else sum(values) / len(values)


def _number(value: float | None, form: str) -> str:
    return "diverged" if value is None else form.format(value)
