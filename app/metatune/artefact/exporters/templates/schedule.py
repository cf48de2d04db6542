"""The tuned numbers of the tuned.json beside this file at any update, without any package.

    from metatune_schedule import rate, shares

    rate("model.norm.weight", step, total_steps)
    shares(step, total_steps)

Step 0 is the first update; `total_steps` are the updates of your training, however long.
"""

import bisect
import functools
import json
from pathlib import Path

TUNED = Path(__file__).with_name("tuned.json")

STEP_TOLERANCE = 1e-6  # of a step: a knot k/T times a total T may miss k by rounding


def rate(name: str, step: int, total_steps: int) -> float:
    """The learning rate of a parameter, by its name in the Hugging Face checkpoint; absolute."""
    rates = _read()["learning_rates"]
    return _at(rates, rates["parameters"][name], step, total_steps)


def shares(step: int, total_steps: int) -> dict[str, float]:
    """The share of each domain in the sequences of an update; they sum to one."""
    found = _columns("mixture", step, total_steps)
    return {domain: share / sum(found.values()) for domain, share in found.items()}


def loss_weights(step: int, total_steps: int) -> dict[str, float]:
    """The weight of the loss of each domain's sequences, or of each class's tokens."""
    return _columns("loss_weights", step, total_steps)


def _columns(field: str, step: int, total_steps: int) -> dict[str, float]:
    if (schedule := _read()[field]) is None:
        raise ValueError(f"{TUNED}: holds no {field}")
    names = schedule.get("domains") or schedule["classes"]
    columns = zip(*schedule["weights"], strict=True)
    return {n: _at(schedule, c, step, total_steps) for n, c in zip(names, columns, strict=True)}


def _at(schedule, values, step: int, total_steps: int) -> float:
    if step < 0 or total_steps < 1:
        raise ValueError(f"step {step} of {total_steps}: steps count from 0, totals from 1")
    knots = schedule["knots"]
    before = bisect.bisect_right(knots, (step + STEP_TOLERANCE) / total_steps) - 1
    if schedule["interpolation"] == "constant" or before == len(knots) - 1:
        return values[before]
    along = max(0.0, step / total_steps - knots[before]) / (knots[before + 1] - knots[before])
    return (1 - along) * values[before] + along * values[before + 1]


@functools.cache
def _read():
    return json.loads(TUNED.read_text(encoding="utf-8"))
