"""What makes a training smoother, as a table."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from scipy.special import stdtrit

from metatune.report.certificate import number
from metatune.report.intervals import CONFIDENCE


def table(document: Mapping[str, Any]) -> RenderableType:
    """A row for each change, and which one to make.

    Args:
        document: as of `check.smoother.as_json`.
    """
    rows = Table("change", "loss", "more, 95 %", "growth", "left", "", box=None, pad_edge=False)
    for column in rows.columns:
        column.no_wrap = True
    own = document["tried"][0]["losses"]
    for tried in document["tried"]:
        losses = tried["losses"]
        loss = None if None in losses else float(np.mean(losses))
        rows.add_row(
            tried["change"],
            number(loss) if loss is None else f"{loss:.4f}",
            "" if tried is document["tried"][0] else more(losses, own),
            number(tried["growth"]),
            "none" if tried["left"] is None else f"{100 * tried['left']:.0f}%",
            "smooth" if tried["smooth"] else "rough",
        )
    return Group(rows, *sentences(document))


def sentences(document: Mapping[str, Any]) -> list[str]:
    """What to do, in a sentence or two."""
    meaning = (
        "growth: of the adjoint, below 10 is smooth; left: of the derivative over a search's step, "
        "50% to 200% is"
    )
    match document["advice"]:
        case None:
            return [meaning, "none of these makes it smooth: lower inner.optimizer.learning_rate"]
        case "as it is":
            return [meaning, "it is smooth as it is"]
        case change:
            return [meaning, f"the smooth one of the least loss: {change}"]


def more(losses: Sequence[float | None], own: Sequence[float | None]) -> str:
    """How much higher the losses are than the recipe's own, in pairs of seeds; Student's 95 %."""
    if None in losses or None in own:
        return "diverges"
    apart = np.subtract(np.asarray(losses, float), np.asarray(own, float))
    count = len(apart)
    error = float(apart.std(ddof=1)) / math.sqrt(count)
    half = float(stdtrit(count - 1, (1 + CONFIDENCE) / 2)) * error
    return f"{apart.mean():+.4f} ± {half:.4f}"
