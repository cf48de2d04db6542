"""What was tuned: a chapter for each section of the artefact, whatever it is of."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from metatune.artefact import Artefact
from metatune.artefact.document import held
from metatune.artefact.sections.section import BASE, ByKnot, Columns, Grid, OnLogScale, Plotted
from metatune.report.colours import APART, INK, Tint, tints
from metatune.report.html import factors
from metatune.report.html.parts import (
    KEY_CHARACTERS,
    Chapter,
    Figure,
    FigureRow,
    Table,
    label,
    layout,
    log_axis,
    numbers,
)
from metatune.report.sampling import evenly, log_floor

STEPS: Final = 160
"""Of a curve: more than can be told apart."""
NUMBERS: Final = 60_000
"""Of all curves of a section; of more curves fewer steps are drawn, but for `LEAST_STEPS`."""
LEAST_STEPS: Final = 24
CURVES: Final = 1_000
"""Of a section; of more, evenly spread ones are drawn."""
GRID_ROWS: Final = 60


def chapters(artefact: Artefact) -> list[Chapter]:
    """A chapter for each section that the artefact has."""
    return [_chapter(artefact, section, value) for section, value in held(artefact)]


def _chapter(artefact: Artefact, section: Any, value: Any) -> Chapter:
    horizon, name = artefact.horizon_steps, section.key.replace("_", "-")
    plotted, lines, rows, tables = section.plotted, list(section.words(value)), [], []
    title = (
        plotted.title.partition(",")[0] if plotted else section.key.replace("_", " ").capitalize()
    )
    first = section.curves(value, [0], horizon)
    if plotted and first:
        count = max(LEAST_STEPS, min(STEPS, NUMBERS // len(first)))
        steps = evenly(horizon, count)
        curves = section.curves(value, steps, horizon)
        base = section.base(value, steps, horizon)
        if len(curves) > CURVES:
            kept = [list(curves)[place] for place in evenly(len(curves), CURVES)]
            lines.append(f"{CURVES:,} of {len(curves):,} curves are drawn, evenly spread")
            curves = {each: curves[each] for each in kept}
        rows.append(FigureRow([_figure(name, plotted, curves, base, steps, horizon)]))
    for view in section.views(value, horizon):
        match view:
            case OnLogScale(factors=ByKnot() as by_knot):
                rows += factors.rows(name, by_knot, horizon)
            case ByKnot() if not first:
                tables.append(_by_knot(view))
            case Grid():
                tables.append(_grid(view))
                if len(view.rows) > GRID_ROWS:
                    lines.append(f"{GRID_ROWS} of {len(view.rows)} rows are shown, evenly spread")
    return Chapter(name, title, lines, rows, tables)


def _figure(
    name: str,
    plotted: Plotted,
    curves: Columns,
    base: np.ndarray | None,
    steps: Sequence[int],
    horizon: int,
) -> Figure:
    """Curves over the training: areas of a whole, or lines; those of a kind in its shades."""
    found, log, share = tints(list(curves)), plotted.scale == "log", plotted.scale == "share"
    values = {each: np.asarray(curve, np.float64) for each, curve in curves.items()}
    if log:
        floored = log_floor(np.stack([*values.values(), *([] if base is None else [base])]))
        base = None if base is None else floored[-1]
        values = dict(zip(values, floored, strict=False))
    several = len(found) > APART and not share
    x = [*steps, horizon]
    traces: list[dict[str, Any]] = [_key(tint) for tint in found if several and tint.first]
    form = ".1%" if share else ".3g"
    for (each, curve), tint in zip(values.items(), found, strict=True):
        if each == BASE and base is not None:
            continue
        # The last step lasts until the training ends.
        drawn = numbers([*curve.tolist(), curve[-1]])
        line = {"shape": "hv", "color": tint.colour, "width": 1.2 if len(found) > APART else 2}
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": label(tint.key, KEY_CHARACTERS),
                "meta": [label(each)],
                "legendgroup": label(tint.key),
                "showlegend": not several,
                "x": x,
                "y": drawn,
                "line": {**line, "width": 0} if share else line,
                "hovertemplate": f"%{{meta[0]}}<br>step %{{x}}: %{{y:{form}}}<extra></extra>",
                **({"stackgroup": "whole", "fillcolor": tint.colour} if share else {}),
            }
        )
    if base is not None:
        dashed = {"color": INK, "width": 2, "dash": "dash", "shape": "hv"}
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": "recipe's own",
                "x": x,
                "y": numbers([*base.tolist(), base[-1]]),
                "line": dashed,
                "hovertemplate": "recipe's own<br>step %{x}: %{y:.3g}<extra></extra>",
            }
        )
    along: dict[str, Any] = {}
    if share:
        along = {"range": [0, 1], "tickformat": ".0%"}
    elif log:
        along = log_axis(value for trace in traces for value in trace["y"])
    else:
        along = {"rangemode": "tozero"}
    axis = f"{plotted.axis}, log scale" if log else plotted.axis
    axes = layout(
        "inner step",
        axis,
        showlegend=True,
        xaxis={"range": [0, horizon]},
        yaxis=along,
        **({"hovermode": "x unified"} if share else {}),
    )
    caption = "A colour for each kind, darker from first to last; hover for names." * several
    return Figure(
        f"{name}-curves", "Over the training", traces, axes, 420 if several else 340, caption
    )


def _key(tint: Tint) -> dict[str, Any]:
    """What a legend has of curves of one kind, in its colour without shades."""
    return {
        "type": "scatter",
        "mode": "lines",
        "name": label(tint.key, KEY_CHARACTERS),
        "legendgroup": label(tint.key),
        "x": [None],
        "y": [None],
        "line": {"color": tint.key_colour, "width": 3},
        "hoverinfo": "skip",
    }


def _by_knot(view: ByKnot) -> Table:
    """Curves that aren't plotted, at their knots."""
    heads = (view.title, *(f"{view.head} {knot:.3g}" for knot in view.knots))
    rows = [
        (name, *(format(float(value), view.digits) for value in curve))
        for name, curve in view.curves.items()
    ]
    return Table(heads, rows)


def _grid(view: Grid) -> Table:
    """Numbers that don't move."""
    kept = [view.rows[place] for place in evenly(len(view.rows), GRID_ROWS)]
    rows = [(row, *(f"{column[row]:+.3f}" for column in view.columns.values())) for row in kept]
    return Table((view.title, *view.columns), rows)
