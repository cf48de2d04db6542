"""`transfer.json`: the rungs, the predictions, and what they come to, as plain values."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from metatune.artefact import Artefact
from metatune.artefact.files import TRANSFER_FORMAT, TRANSFER_VERSION
from metatune.ladder.judging import Judged, as_json
from metatune.ladder.prediction import Point, predict
from metatune.transfer.rung import Rung

FARTHER: Final = (4.0, 64.0)
"""Times the compute of the largest rung, for which the gain is predicted."""


class Measured(NamedTuple):
    """A rung that was trained.

    Attributes:
        rung: its sizes.
        parameters: of its model.
        steps: updates.
        operations: of a training.
        seeds: of each candidate.
        losses: by candidate, over the seeds.
        judged: what they come to.
        left: what a trainer must do beyond rates, that was done.
        undone: what no training here did.
    """

    rung: Rung
    parameters: int
    steps: int
    operations: float
    seeds: int
    losses: Mapping[str, Sequence[float]]
    judged: Judged
    left: Sequence[str] = ()
    undone: Sequence[str] = ()

    @property
    def point(self) -> Point:
        """What predictions are made by."""
        gain = self.judged.gain
        return Point(self.operations, gain.mean, gain.error, self.seeds, self.parameters)

    @property
    def sentence(self) -> str:
        """The rung in a line."""
        gain, judged = self.judged.gain, self.judged
        share = judged.retention
        kept = "" if share is None else f", {100 * share:.0f} % of the proxy's"
        return (
            f"{self.rung.name}: gain {gain.mean:+.4f} ({gain.low:+.4f} to {gain.high:+.4f}){kept}; "
            f"{judged.over_best.mean:+.4f} over the best baseline, {judged.best}; "
            f"best level x{judged.level:g}"
        )


def document(
    rule: str,
    tuned: Artefact,
    found: Sequence[Measured],
    predictions: Mapping[str, Mapping[str, Any]],
    named: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """All that is known, as plain JSON values.

    Args:
        rule: that carried.
        tuned: what was.
        found: the rungs so far, the proxy first.
        predictions: by rung.
        named: predictions for models that were named, none of which was trained.
    """
    rungs = []
    for each in found:
        predicted = predictions.get(each.rung.key)
        rungs.append(
            {
                "name": each.rung.name,
                **(
                    {} if each.rung.config else {"width": each.rung.width, "depth": each.rung.depth}
                ),
                "parameters": each.parameters,
                "steps": each.steps,
                "operations": each.operations,
                "losses": each.losses,
                **each.judged._asdict(),
                "left": list(each.left),
                "undone": list(each.undone),
                "predicted": predicted and {**predicted, "holds": _holds(predicted, each)},
            }
        )
    return as_json(
        {
            "format": TRANSFER_FORMAT,
            "version": TRANSFER_VERSION,
            "rule": rule,
            "recipe_sha256": tuned.provenance["recipe_sha256"],
            "best_outer_step": tuned.result["best_outer_step"],
            "unit": tuned.result["unit"],
            "seeds": found[0].seeds,
            "verdict": verdict(found),
            "rungs": rungs,
            "farther": [*farther(found), *named],
        }
    )


def verdict(found: Sequence[Measured]) -> str:
    """Whether the gain survives, in a sentence."""
    if len(found) == 1:
        return "not known: no rung above the proxy was trained"
    top = found[-1]
    gain, kept = top.judged.gain, top.judged.retention
    largest = f"at the largest rung, {top.rung.name} ({top.parameters:,} parameters)"
    if gain.high < 0:
        return f"it does harm {largest}: {-gain.mean:.4f} worse than the default"
    if gain.low <= 0:
        return f"no gain is left that noise doesn't hide {largest}: {gain.mean:+.4f}"
    over, best = top.judged.over_best, top.judged.best
    if over.low <= 0:
        how = f"is better there, by {-over.mean:.4f}" if over.high < 0 else "comes as far there"
        return f"the gain survives {largest} ({gain.mean:+.4f}), but the baseline {best} {how}"
    share = "" if kept is None else f", {100 * kept:.0f} % of the proxy's"
    return f"the gain survives {largest}: {gain.mean:.4f}{share}"


def farther(found: Sequence[Measured]) -> list[dict[str, Any]]:
    """The gain that is to be expected of larger trainings, none of which was done.

    Their compute is larger by parameters and by tokens alike (Hoffmann et al., 2022).
    """
    points, largest, told = [each.point for each in found], max(found, key=_operations), []
    for times in FARTHER:
        operations = times * largest.operations
        size = largest.parameters * math.sqrt(times)
        if (made := predict(points, operations, size)) is not None:
            told.append({"times": times, "operations": operations, **made._asdict()})
    return told


def _operations(measured: Measured) -> float:
    return measured.operations


def _holds(predicted: Mapping[str, Any], measured: Measured) -> bool:
    """Whether a gain that was measured lies where it was predicted."""
    return predicted["low"] <= measured.judged.gain.mean <= predicted["high"]
