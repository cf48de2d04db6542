"""What-if for people, and as plain values."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from metatune.ladder.judging import as_json
from metatune.verdict.statistics import PairedDifference
from metatune.verdict.what_if.asking import Answer, Asking
from metatune.verdict.what_if.model import LEVEL, PredictedChange
from metatune.verdict.what_if.sensitivity import SensitivityRow

SURE = f"{1 - LEVEL:.0%}".replace("%", " %")


def answer_lines(changes: Sequence[str], answer: Answer, unit: str) -> list[str]:
    """What a change would do."""
    found = answer.predicted
    lines = [f"what if {', '.join(changes)}"]
    if math.isinf(found.change):
        lines.append(f"predicted: trainings diverge; the slope alone is {found.slope:+.4f}")
    else:
        lines += [f"predicted: {said(found)} {unit} ({SURE}); {_meaning(found)}", _parts(found)]
    if answer.measured is not None:
        verdict = "the prediction held" if answer.held else "the prediction did NOT hold"
        lines.append(f"measured: {_measured(answer.measured)}; {verdict}")
    return lines


def said(found: PredictedChange) -> str:
    """A change with its interval: `+0.0040 ± 0.0020`."""
    if math.isinf(found.change):
        return "diverges"
    return f"{found.change:+.4f} ± {found.half:.4f}"


def row_lines(
    rows: Sequence[tuple[SensitivityRow, PredictedChange | None]], unit: str
) -> list[str]:
    """The table of what a run is sensitive to."""
    width = max(len(row.change) for row, _ in rows)
    lines = [f"change of the objective, {unit}, {SURE} intervals; - is better, * is told from zero"]
    for row, found in rows:
        told = f"none: {row.refusal}" if found is None else said(found)
        star = "*" if found is not None and found.told else ""
        lines.append(f"  {row.change.ljust(width)}  {told}{star}")
    return lines


def document(asking: Asking, changes: Sequence[str], answer: Answer) -> dict[str, Any]:
    """An answer as plain values; null for what isn't finite."""
    measured: Mapping[str, Any] | None = None
    if answer.measured is not None:
        measured = answer.measured._asdict()
    return as_json(
        {
            **_about(asking),
            "changes": list(changes),
            "predicted": answer.predicted.plain(),
            "measured": measured,
            "held": answer.held,
        }
    )


def table_document(
    asking: Asking, rows: Sequence[tuple[SensitivityRow, PredictedChange | None]]
) -> dict[str, Any]:
    """The table as plain values."""
    told = [
        {
            "change": row.change,
            "predicted": None if found is None else found.plain(),
            "refused": row.refusal,
        }
        for row, found in rows
    ]
    return as_json({**_about(asking), "sensitivities": told})


def _about(asking: Asking) -> dict[str, Any]:
    return {
        "recipe_sha256": asking.tuned.provenance["recipe_sha256"],
        "best_outer_step": asking.tuned.result["best_outer_step"],
        "unit": asking.unit,
        "level": LEVEL,
    }


def _meaning(found: PredictedChange) -> str:
    if not found.told:
        return "better or worse isn't told"
    return "worse" if found.change > 0 else "better"


def _parts(found: PredictedChange) -> str:
    if found.pairs:
        return (
            f"  by {found.pairs} pairs of trainings: over so long a change derivatives aren't the "
            f"slope (theirs is {found.slope:+.4f})"
        )
    told = f"  slope {found.slope:+.4f} ({found.seeds} hypergradients)"
    if found.second is None:
        return told
    bends = f"({found.bends} seeds on either side)"
    return f"{told}, curvature {found.second / 2:+.4f} {bends}; of neither: {abs(found.rest):.4f}"


def _measured(found: PairedDifference) -> str:
    if not math.isfinite(found.mean):
        return f"a training diverged in half of {found.seeds} pairs, or more"
    median = "a median of " if found.signs else ""
    ends = (f"{end:+.4f}" if math.isfinite(end) else "any" for end in (found.low, found.high))
    return f"{median}{found.mean:+.4f} ({' to '.join(ends)}) by {found.seeds} pairs of fresh seeds"
