"""A verdict for people: what it is about to take, and what it came to."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from metatune.report.fitting import Fitting, Pieces

COLUMNS = (
    "contestant",
    "loss",
    "behind tuned",
    "95 %",
    "trainings",
    "inner steps",
    "gradients",
    "seconds",
    "chose",
)

COSTS = ("trainings", "inner_steps", "gradients")


def lines(document: Mapping[str, Any]) -> list[str]:
    """A verdict in two lines: what to do, and what it was held against."""
    names = ", ".join(each["name"] for each in document["rivals"]) or "nobody else"
    return [
        document["sentence"],
        *_simple(document.get("simple")),
        f"{document['seeds']} fresh seeds, held against the default and {names}, "
        f"{document['budget']:,} inner steps each",
    ]


def table(document: Mapping[str, Any], seconds: Mapping[str, float]) -> RenderableType:
    """The contestants, the best first, with what they cost, and the verdict.

    Args:
        document: a `verdict.json`.
        seconds: of each one's search, by name, as the record has them.
    """
    rows, blocks = Table(*COLUMNS, box=None, pad_edge=False), []
    for column in rows.columns:
        column.no_wrap = True
    for name, *cells in _rows(document, seconds):
        rows.add_row(name, *cells)
        blocks.append(Text(name, "bold"))
        told = zip(COLUMNS[1:], cells, strict=True)
        blocks.append(Pieces([f"{column} {cell}" for column, cell in told if cell]))
    about = (
        f"{document['seeds']} fresh seeds on the test split, {document['unit']}; behind tuned: its "
        "loss minus that of what was tuned, in pairs; * told from zero, all contestants and looks "
        "allowed for. A contestant that is told needs no further seeds. Where a training diverged, "
        "the median and the interval of the sign test"
    )
    lines = [*_parts(document.get("parts")), *_simple(document.get("simple"))]
    refused = [f"{each['name']} took no part: {each['why']}" for each in document["refused"]]
    return Group(
        Text.assemble("verdict: ", (document["sentence"], "bold")),
        Text(about, "dim"),
        Fitting((rows, Group(*blocks))),
        *(Text(line) for line in lines),
        *(Text(line, "dim") for line in refused),
    )


def _parts(parts: Mapping[str, Any] | None) -> list[str]:
    """What is lost without a part, the most first."""
    if parts is None:
        return []
    ordered = sorted(parts["variants"], key=lambda each: -(each["lost"]["mean"] or float("inf")))
    gain = parts["gain"]["mean"]
    lines = [f"of a gain of {gain:+.4f} in validation is lost, 95 % intervals in brackets:"]
    for each in ordered:
        lost = each["lost"]
        if lost["mean"] is None:
            lines.append(f"  {each['name']}: diverged")
            continue
        share = "" if each["share"] is None else f", {each['share']:.0%}"
        lines.append(f"  {each['name']}: {lost['mean']:+.4f} ({_between(lost)}){share}")
    return lines


def _simple(simple: Mapping[str, Any] | None) -> list[str]:
    """What the simple schedules are, and keep."""
    if simple is None:
        return []
    return [
        f"simple schedules, in artefact-simple: {simple['words']}; {simple['kept']:.0%} of the "
        "gain is kept"
    ]


def plan(contest: Any) -> list[str]:
    """What a contest takes.

    Args:
        contest: of `metatune.verdict.contest`.
    """
    names = ", ".join(each.name for each in contest.contestants)
    spent, steps = contest.spent, contest.setting.steps
    also = f", and {', '.join(contest.also)}" if contest.also else ""
    return [
        f"the search took {spent.inner_steps:,} inner steps ({spent.trainings(steps):.0f} "
        f"trainings; {spent.gradients:,.0f} gradients) and {spent.seconds:,.0f} s",
        f"contestants, of {contest.budget:,} inner steps each: {names or 'none'}{also}",
        *(f"  {name} takes no part: {why}" for name, why in contest.refused.items()),
        f"resolution {contest.resolution:.4f}: about {contest.expected_seeds} seeds are expected "
        f"to tell, {contest.most} at most; about {contest.work:,} trainings in all",
    ]


def _rows(document: Mapping[str, Any], seconds: Mapping[str, float]) -> list[Sequence[str]]:
    tuned, default = document["tuned"], document["default"]
    found: list[tuple[Losses, str, Sequence[str], Sequence[str], str]] = [
        (
            tuned["losses"],
            "tuned",
            ("", ""),
            ("", f"{tuned['inner_steps']:,}", f"{tuned['gradients']:,.0f}"),
            "",
        ),
        (default["losses"], "default", _behind(document["gain"]), ("", "", ""), ""),
    ]
    for each in document["rivals"]:
        cost = [f"{each[key]:,}" if key in each else "" for key in COSTS]
        behind = _behind(each["behind_tuned"])
        found.append((each["losses"], each["name"], behind, cost, each.get("words", "")))
    rows = []
    for losses, name, behind, cost, words in sorted(found, key=lambda row: _order(row[0])):
        took = f"{seconds[name]:.0f}" if seconds.get(name) else ""
        rows.append((name, _shown(losses), *behind, *cost, took, words))
    return rows


Losses = Sequence[float | None]
"""By seed; None where the training diverged."""


def _order(losses: Losses) -> tuple[float, float]:
    """By the share of the trainings that diverged, then by the mean of the others."""
    known = [loss for loss in losses if loss is not None]
    return 1 - len(known) / len(losses), sum(known) / max(1, len(known))


def _shown(losses: Losses) -> str:
    """The mean of the trainings that have a loss, and how many have none."""
    known = [loss for loss in losses if loss is not None]
    diverged = f"{len(losses) - len(known)} of {len(losses)} diverged"
    if not known:
        return diverged
    mean = f"{sum(known) / len(known):.4f}"
    return mean if len(known) == len(losses) else f"{mean}, {diverged}"


def _behind(found: Mapping[str, Any]) -> tuple[str, str]:
    star = "*" if found["settled"] else ""
    if found["mean"] is None:
        return f"diverged{star}", ""
    median = " (median)" if found.get("signs") else ""
    return f"{found['mean']:+.4f}{star}{median}", _between(found)


def _between(found: Mapping[str, Any]) -> str:
    """An interval; an end where a training diverged has no number."""
    low, high = ("any" if found[end] is None else f"{found[end]:+.4f}" for end in ("low", "high"))
    return f"{low} to {high}"
