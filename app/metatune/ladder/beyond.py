"""What a ledger says of a training that is larger than its rungs."""

import math
from collections.abc import Mapping
from typing import Any, Final

from metatune.artefact import Artefact
from metatune.ladder.prediction import Point, predict
from metatune.models import build

FARTHEST: Final = 2.0
"""Times the compute of the largest training that was done, up to which nothing is warned of."""


def parameters_of(config: Mapping[str, Any], vocabulary: int | None) -> int:
    """Numbers of a model, as of `measuring.parameters`.

    Args:
        config: fields of the model's `config.json`.
        vocabulary: of the model, where the config leaves it to the tokenizer.
    """
    size = None if "vocab_size" in config else vocabulary or 2
    shapes = build(config, vocab_size=size, path="the model to come").shapes().values()
    total = 0
    for shape in shapes:
        count = 1
        for length in shape:
            count *= length
        total += count
    return total


def operations_of(parameters: float, tokens: int) -> float:
    """Floating-point operations of a training, as of `measuring.operations`."""
    return 6.0 * parameters * tokens


def points_of(ledger: Mapping[str, Any]) -> list[Point]:
    """The gains of a ledger's rungs, of those where no training diverged."""
    return [
        Point(
            rung["operations"],
            rung["gain"]["mean"],
            rung["gain"]["error"],
            ledger["seeds"],
            rung["parameters"],
        )
        for rung in ledger["rungs"]
        if rung["gain"]["error"] is not None
    ]


def warning(tuned: Artefact, parameters: float, tokens: int) -> str | None:
    """What is to be told of a training far beyond those that were done; None for nothing.

    Args:
        tuned: the artefact, before it was carried.
        parameters: of the model to come.
        tokens: that its training reads.
    """
    ledger, operations = tuned.transfer, operations_of(parameters, tokens)
    if ledger is None:
        config = tuned.provenance.get("model_config")
        vocabulary = tuned.provenance.get("vocab_size")
        own = parameters_of(config, vocabulary) if config else math.inf
        if operations <= FARTHEST * operations_of(own, tuned.horizon_tokens):
            return None
        return (
            "whether the gain carries over to so much larger a training was never measured; "
            "metatune transfer RUN measures it on a ladder up to there"
        )
    rungs = ledger["rungs"]
    largest = max(rung["operations"] for rung in rungs)
    if operations <= FARTHEST * largest:
        return None
    points = points_of(ledger)
    times = operations / largest
    said = f"{times:,.0f}" if times >= 10 else f"{times:.2g}"
    beyond = f"{said} times the compute of the largest rung that was measured"
    made = predict(points, operations, parameters) if points else None
    if made is None:
        return f"{beyond}: what gain is left there was never measured, nor can it be predicted"
    return (
        f"{beyond}: a gain of {made.gain:.4f} is predicted, {made.low:.4f} to {made.high:.4f} "
        f"{ledger['unit']}"
    )
