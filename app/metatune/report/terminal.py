"""What `metatune show` prints: the result in words, and the schedules as small plots."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from metatune.artefact import Artefact
from metatune.artefact.document import held
from metatune.artefact.sections.section import ByKnot, Grid, OnLogScale
from metatune.report import certificate, search, sharing, signal, transfer
from metatune.report import verdict as contest
from metatune.report.artefact_readme import (
    horizon,
    provenance_lines,
    verdict,
    what_is_tuned,
)
from metatune.report.fitting import Fitting, Name, slack_of
from metatune.report.sampling import evenly, log_floor
from metatune.report.usage import recommended

BARS = "▁▂▃▄▅▆▇█"
PLOT_COLUMNS = 16
MULTIPLIER_COLUMNS = 8
"""Characters of a small plot at most."""

KNOT_COLUMNS = (6, 4, 2)
"""Of more knots, so many evenly spread ones are shown, with the first and last: as many as fit."""

SERIES = ("objective", "held_out")
"""Series of the metrics that are shown over the points of the search."""


def summary(artefact: Artefact, metrics: Sequence[Mapping[str, Any]]) -> RenderableType:
    """What was tuned, on what, what it gained, and the tuned schedules.

    Args:
        artefact: the tuned schedules.
        metrics: the lines of metrics.jsonl, one for each point of the search; may be empty.

    Returns:
        For `rich.console.Console.print`.
    """
    parts: list[RenderableType] = [_header(artefact)]
    if metrics:
        parts.append(_search(metrics))
    told = [*search.closing(artefact.result), *search.jumped(artefact.result)]
    told += search.divergences(metrics)
    parts += [Text(line, "yellow") for line in told]
    parts += [Text(line) for line in signal.ways(artefact.result)]
    if changes := artefact.result.get("sharing", {}).get("changes"):
        parts.append(Group(*(Text(line) for line in sharing.sentences(changes))))
    parts += [
        DRAWN[type(view)](view, artefact.horizon_steps)
        for section, value in held(artefact)
        for view in section.views(value, artefact.horizon_steps)
    ]
    parts.append(_provenance(artefact))
    return Group(*parts)


def sparkline(values: np.ndarray, low: float, high: float, columns: int = PLOT_COLUMNS) -> str:
    """A plot in one line of text.

    Args:
        values: finite numbers [steps].
        low: drawn as the lowest bar, as is everything below.
        high: drawn as the highest bar, as is everything above.
        columns: characters at most; of more steps, evenly spread ones are drawn.

    Returns:
        A bar for each step that is drawn; middle bars where `low` equals `high`.
    """
    drawn = np.asarray(values, np.float64)[evenly(len(values), columns)]
    heights = (drawn - low) / (high - low) if high > low else np.full(len(drawn), 0.5)
    levels = np.clip((heights * len(BARS)).astype(int), 0, len(BARS) - 1)
    return "".join(BARS[level] for level in levels)


def _header(artefact: Artefact) -> Panel:
    result = artefact.result
    style = "bold green" if recommended(artefact) else "bold yellow"
    lines = [Text(verdict(result, decided=artefact.verdict is not None), style=style)]
    if result.get("status") == "complete":
        lines.append(
            Text(
                f"default {result['objective_before']:.4f} → tuned {result['objective_after']:.4f} "
                f"{result['unit']}, held out, {len(result['held_out_seeds'])} paired trainings"
            )
        )
    if "status" in result:
        lines.append(Text(f"tuned: {search.chosen(result)}", "dim"))
    lines += [Text(line) for line in what_is_tuned(artefact)]
    lines.append(Text(f"horizon: {horizon(artefact)}"))
    if artefact.certificate is not None:
        lines += certificate.headline(artefact.certificate)
    if artefact.transfer is not None:
        lines += [Text(f"transfer: {line}") for line in transfer.lines(artefact.transfer)]
    if artefact.verdict is not None:
        lines += [Text(f"verdict: {line}") for line in contest.lines(artefact.verdict)]
    return Panel(Group(*lines), title="metatune", title_align="left")


def _search(metrics: Sequence[Mapping[str, Any]]) -> Table:
    points = f"points {metrics[0]['step']} to {metrics[-1]['step']}"
    table = _plot_table(f"search, {points}", ("first", "last", "lowest"))
    for name in SERIES:
        values = np.array([line[name] for line in metrics if line.get(name) is not None])
        if len(values):
            numbers = (f"{value:.4f}" for value in (values[0], values[-1], values.min()))
            plot = sparkline(values, values.min(), values.max())
            table.add_row(Text(name), Text(plot, "cyan"), *numbers)
    return table


def _on_log_scale(view: OnLogScale, horizon: int) -> Fitting:
    """Curves and their factors; all plots of a column share one logarithmic scale.

    Where they don't fit there is the plot of the factors alone, or none.
    """
    curves = view.curves(evenly(horizon, PLOT_COLUMNS))
    logs = np.log(log_floor(np.stack(list(curves.values()))))
    factors = view.factors.curves if view.factors else dict.fromkeys(curves, (1.0,))
    shown = view.factors.shown if view.factors else "{:.2f}".format
    reach = float(np.abs(np.log(np.stack(list(factors.values())))).max())
    wide = _plot_table(view.title, ("first", "last", "first ×", "", "last ×"))
    middle = _table_of_names(view.title, ("first", "last", "×first", "", "×last"))
    narrow = _table_of_names(view.title, ("first", "last", "×first", "×last"))
    for (group, curve), log in zip(curves.items(), logs, strict=True):
        values = np.asarray(factors[group])
        rates = f"{curve[0]:.1e}", f"{curve[-1]:.1e}"
        first, last = shown(values[0]), shown(values[-1])
        plot = sparkline(np.log(values), -reach, reach, MULTIPLIER_COLUMNS)
        narrow.add_row(Name(group), *rates, first, last)
        middle.add_row(Name(group), *rates, first, Text(plot, "magenta"), last)
        wide.add_row(
            Name(group),
            Text(sparkline(log, logs.min(), logs.max()), "cyan"),
            *rates,
            first,
            Text(plot, "magenta"),
            last,
        )
    return Fitting((wide, middle, narrow), slack_of(tuple(curves)))


def _by_knot(view: ByKnot, horizon: int) -> Fitting:
    """A row for each curve, a column for each of the knots, of as many as fit."""
    del horizon
    tables = []
    curves = {name: np.asarray(curve) for name, curve in view.curves.items()}
    top = float(max(curve.max() for curve in curves.values()))
    for count in KNOT_COLUMNS:
        chosen = evenly(len(view.knots), count)
        heads = [f"{view.knots[i]:.2f}" for i in chosen]
        table = _plot_table(f"{view.title} from each fraction of training", heads)
        for name, curve in curves.items():
            reach = (0.0, top) if view.least == "zero" else (curve.min(), curve.max())
            plot = Text(sparkline(curve, *reach), "cyan")
            table.add_row(Name(name), plot, *(view.shown(curve[i]) for i in chosen))
        tables.append(table)
    return Fitting(tables, slack_of(tuple(curves)))


def _grid(view: Grid, horizon: int) -> Table:
    """A row for each name, with a number for each column."""
    del horizon
    table = Table(
        title=view.title, title_justify="left", title_style="bold", box=None, pad_edge=False
    )
    for head in ("", *view.columns):
        table.add_column(Name(head), justify="right" if head else "left")
    for name in view.rows:
        cells = (f"{column[name]:+.3f}" for column in view.columns.values())
        table.add_row(Name(name), *cells)
    return table


DRAWN: Mapping[type, Callable[[Any, int], RenderableType]] = {
    OnLogScale: _on_log_scale,
    ByKnot: _by_knot,
    Grid: _grid,
}


def _provenance(artefact: Artefact) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, value in provenance_lines(artefact):
        table.add_row(Text(name, "dim"), Text(value, "dim"))
    return table


def _plot_table(title: str, heads: Sequence[str]) -> Table:
    return _table_of_names(title, ("", *heads))


def _table_of_names(title: str, heads: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("")
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    return table
