"""The gradient's certificate: what was checked of the hypergradients, and what came of it."""

from collections.abc import Mapping
from typing import Any

from metatune.report.certificate import level, number, summaries
from metatune.report.colours import CATEGORICAL, SOFT
from metatune.report.commands import typed
from metatune.report.html.parts import Chapter, Figure, FigureRow, Table, label, layout, numbers
from metatune.report.html.sources import Sources


def chapter(found: Sources) -> Chapter | None:
    """The certificate; or the command that makes one, where it can."""
    document = None if found.artefact is None else found.artefact.certificate
    title = "Certificate of the gradient"
    if document is None and not found.is_run:
        return None
    if document is None:
        lines = ["The hypergradients of this recipe weren't checked. To check them:"]
        # It goes into the artefact, if there is one.
        into = () if found.artefact is None else ("--run", found.path)
        command = typed("check", f"{found.path}/recipe.yaml", *into)
        return Chapter("certificate", title, lines, commands=[command])
    checks = document["checks"]
    rows = [(name, level(checks[name]), sentence) for name, sentence in summaries(checks).items()]
    lines = [
        f"{document['verdict']}, of the recipe before it was tuned",
        *document["causes"],
        *document.get("limits", ()),
    ]
    figures = []
    if held := (checks.get("differences") or {}).get("rows"):
        figures.append(FigureRow([_directions(held)]))
    return Chapter(
        "certificate", title, lines, figures, [Table(("check", "level", "found"), rows, (1, 2))]
    )


def _directions(rows: list[Mapping[str, Any]]) -> Figure:
    """Derivatives by the estimator against central differences, along the same directions."""
    ends = [value for row in rows for value in (row.get("estimator"), row.get("difference"))]
    finite = numbers(ends)
    known = [value for value in finite if value is not None] or [0.0]
    low, high = min(known), max(known)
    traces = [
        {
            "type": "scatter",
            "mode": "lines",
            "x": [low, high],
            "y": [low, high],
            "line": {"color": SOFT, "width": 1, "dash": "dash"},
            "hoverinfo": "skip",
        },
        {
            "type": "scatter",
            "mode": "markers",
            "x": numbers(row.get("difference") for row in rows),
            "y": numbers(row.get("estimator") for row in rows),
            "error_x": {"array": numbers(row.get("noise") for row in rows), "thickness": 1},
            "error_y": {"array": numbers(row.get("error") for row in rows), "thickness": 1},
            "marker": {"size": 8, "color": CATEGORICAL[0]},
            "text": [
                f"along {label(str(row['name']))}<br>estimator {number(row.get('estimator'))}, "
                f"difference {number(row.get('difference'))}"
                for row in rows
            ],
            "hovertemplate": "%{text}<extra></extra>",
        },
    ]
    axes = layout("central difference of whole trainings", "derivative by the estimator")
    caption = "On the dashed line both agree; bars are their noise."
    return Figure(
        "certificate-directions", "Derivatives along directions", traces, axes, 340, caption
    )
