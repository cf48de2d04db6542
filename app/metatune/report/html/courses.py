"""How far each search had come by what it had spent: the best validation loss so far."""

from collections.abc import Mapping, Sequence
from typing import Any

from metatune.report.colours import CATEGORICAL, INK
from metatune.report.html.parts import (
    KEY_CHARACTERS,
    Figure,
    label,
    layout,
    log_axis,
    number,
    numbers,
)

DASHES = ("solid", "dash", "dot")


def courses(document: Mapping[str, Any]) -> Figure | None:
    """The best so far of each contestant, and of the search for what was tuned, in inner steps.

    Args:
        document: a `verdict.json`; older ones have no courses.

    Returns:
        None where nobody has one.
    """
    searches = [{"name": "tuned", **document["tuned"]}, *document["rivals"]]
    held = [each for each in searches if each.get("course")]
    if not held:
        return None
    traces = []
    for place, each in enumerate(held):
        own = each["name"] == "tuned"
        rival = place - (held[0]["name"] == "tuned")
        line = {
            "shape": "hv",
            "width": 3 if own else 1.5,
            "color": INK if own else CATEGORICAL[rival % len(CATEGORICAL)],
            "dash": "solid" if own else DASHES[rival // len(CATEGORICAL) % len(DASHES)],
        }
        traces.append(_trace(each["name"], each["course"], each["inner_steps"], line))
    steps = [step for each in held for step in (each["course"][0][0], each["inner_steps"])]
    axes = layout(
        "inner steps that the search had spent (log)",
        f"best validation loss so far ({document['unit']})",
        showlegend=True,
        xaxis=log_axis(steps),
    )
    caption = (
        "Each search looks at the validation split by a seed of its own, what was tuned by the "
        "mean over its seeds: lines tell of progress, the test split of the outcome. A "
        "hypergradient's inner steps count once here, about four times in gradients."
    )
    return Figure("contest-course", "The best so far", traces, axes, 380, caption)


def _trace(
    name: str, course: Sequence[Sequence[float]], end: int, line: Mapping[str, Any]
) -> dict[str, Any]:
    """A line that ends where the search does."""
    last = course[-1][1]
    return {
        "type": "scatter",
        "mode": "lines",
        "name": label(name, KEY_CHARACTERS),
        "meta": [label(name)],
        "x": [number(step) for step, _ in course] + [number(end)],
        "y": numbers([*(loss for _, loss in course), last]),
        "line": dict(line),
        "hovertemplate": "%{meta[0]}: %{y:.4f} after %{x:,.0f} inner steps<extra></extra>",
    }
