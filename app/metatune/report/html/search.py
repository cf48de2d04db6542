"""The course of a search: losses over its points, and the training that was tuned."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from metatune.report import search as words
from metatune.report import sharing, signal
from metatune.report.colours import CATEGORICAL, INK, mixed
from metatune.report.html.parts import (
    KEY_CHARACTERS,
    Chapter,
    Figure,
    FigureRow,
    counting_axis,
    label,
    layout,
    log_axis,
    numbers,
)
from metatune.report.html.sources import Sources

POINTS: Final = "point of the search"
JUDGED, DIFFERENTIATED, DEFAULT = CATEGORICAL[:3]


def chapter(found: Sources) -> Chapter | None:
    """How the search went; None where neither it nor a training left a record."""
    rows = []
    unit = _unit(found)
    if found.metrics:
        rows.append(FigureRow([_losses(found.metrics, unit)]))
        if norms := _norms(found.metrics):
            rows.append(FigureRow([norms]))
    if training := _training(found):
        rows.append(FigureRow([training]))
    lines = _lines(found)
    if not rows and not lines and not found.is_run:
        return None
    if not found.metrics:
        lines.append(_missing(found))
    return Chapter("search", "The search", lines=lines, rows=rows)


def _missing(found: Sources) -> str:
    """Why there is nothing of the search's points."""
    if not found.is_run:
        return "The search itself is recorded in its run folder alone."
    if found.is_measured:
        return (
            "The points of the search aren't here: the run is finished, but its `metrics.jsonl` is "
            "missing or empty."
        )
    return "No point of the search is recorded yet: `metrics.jsonl` is missing or empty."


def _unit(found: Sources) -> str:
    known = found.artefact.result.get("unit") if found.artefact is not None else None
    return known or "as the recipe's objective measures"


def _lines(found: Sources) -> list[str]:
    """What the search said of itself."""
    if found.artefact is None:
        return []
    result = found.artefact.result
    best = [f"what is tuned here is {words.chosen(result)}"]
    told = [*words.closing(result), *words.jumped(result)]
    shared = sharing.sentences(result.get("sharing", {}).get("changes", ()))
    told += signal.ways(result)
    return [*(best if "best_outer_step" in result else ()), *told, *shared]


def _losses(metrics: Sequence[Mapping[str, Any]], unit: str) -> Figure:
    """Validation and objective at each point."""
    judged = [line for line in metrics if line.get("held_out") is not None]
    seeds = [
        (line["step"], loss)
        for line in judged
        for loss in (line.get("held_out_each") or ())
        if loss is not None
    ]
    taken = [line for line in metrics if line.get("objective") is not None]
    traces = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": "each seed in validation",
            "x": [step for step, _ in seeds],
            "y": numbers(loss for _, loss in seeds),
            "marker": {"size": 5, "color": mixed(JUDGED, 0.45)},
            "hovertemplate": "point %{x}, one seed: %{y:.4f}<extra></extra>",
        },
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": "objective that is differentiated",
            "x": [line["step"] for line in taken],
            "y": numbers(line["objective"] for line in taken),
            "line": {"width": 1.5, "color": DIFFERENTIATED, "dash": "dot"},
            "marker": {"size": 4},
            "hovertemplate": "point %{x}, objective: %{y:.4f}<extra></extra>",
        },
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": "validation",
            "x": [line["step"] for line in judged],
            "y": numbers(line["held_out"] for line in judged),
            "line": {"width": 2.5, "color": JUDGED},
            "marker": {"size": 6},
            "hovertemplate": "point %{x}, validation: %{y:.4f}<extra></extra>",
        },
    ]
    shown = [trace for trace in traces if trace["x"]]
    axes = layout(
        POINTS, f"loss ({unit})", showlegend=True, xaxis=counting_axis(metrics[-1]["step"])
    )
    caption = (
        "A point is what so many outer steps led to, 0 the recipe's own. Validation chooses; the "
        "result is measured elsewhere."
    )
    return Figure("search-losses", "Loss over the search", shown, axes, caption=caption)


def _norms(metrics: Sequence[Mapping[str, Any]]) -> Figure | None:
    """The norm of each tunable's slice of the hypergradient."""
    names = dict.fromkeys(key for line in metrics for key in line.get("hypergradient_norm") or ())
    traces = []
    for place, name in enumerate(names):
        held = [line for line in metrics if name in (line.get("hypergradient_norm") or ())]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": label(name, KEY_CHARACTERS),
                "meta": [label(name)],
                "x": [line["step"] for line in held],
                "y": numbers(line["hypergradient_norm"][name] for line in held),
                "line": {"color": CATEGORICAL[place % len(CATEGORICAL)]},
                "marker": {"size": 5},
                "hovertemplate": "%{meta[0]}, point %{x}: %{y:.3g}<extra></extra>",
            }
        )
    if not traces:
        return None
    axes = layout(
        POINTS,
        "norm (log scale)",
        showlegend=True,
        xaxis=counting_axis(metrics[-1]["step"]),
        yaxis=log_axis(value for trace in traces for value in trace["y"]),
    )
    return Figure("search-norms", "Norm of the hypergradient", traces, axes, height=260)


def _training(found: Sources) -> Figure | None:
    """The losses of a tuned training and of the default's, where their record is kept."""
    origin = found.artefact.origin if found.artefact is not None else None
    record = origin.record if origin is not None else None
    training = (record or {}).get("training")
    if not training or not training.get("losses"):
        return None
    # Records of before this was kept have the tuned training alone.
    named = {
        "default": (training.get("default_losses"), DEFAULT),
        "tuned": (training["losses"], INK),
    }
    traces = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": name,
            "x": list(training["steps"]),
            "y": numbers(losses),
            "line": {"width": 2, "color": colour},
            "hovertemplate": f"{name}, inner step %{{x}}: %{{y:.4f}}<extra></extra>",
        }
        for name, (losses, colour) in named.items()
        if losses
    ]
    axes = layout("inner step", "training loss (of a batch)", showlegend=len(traces) > 1)
    caption = (
        f"One training of each, seed {training['seed']}. Where mixtures differ, so do the batches: "
        "what they are worth is told by the held-out loss."
    )
    return Figure("search-training", "Training loss", traces, axes, height=260, caption=caption)
