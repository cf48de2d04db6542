"""The tuned average of the parameters, beside any Optax optimizer.

    from metatune_averaging import averaged

    average = params
    for step, batch in enumerate(batches):
        ...
        params = optax.apply_updates(params, updates)
        average = averaged(average, params, step, total_steps)  # after every update
    # evaluate and keep the average

Step 0 is the first update; `step` may be traced.
"""

import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

TUNED = Path(__file__).with_name("tuned.json")

STEP_TOLERANCE = 1e-6  # of a step: a knot k/T times a total T may miss k by rounding


def decay(total_steps: int, *, path: Path = TUNED) -> np.ndarray:
    """How much of the average stays after each update, [total_steps].

    Raises:
        ValueError: a total below 1.
    """
    if total_steps < 1:
        raise ValueError(f"{total_steps} updates: a training has at least one")
    schedule = _read(path)["averaging"]
    knots, values = np.asarray(schedule["knots"]), np.asarray(schedule["decay"])
    steps = np.arange(total_steps)
    if schedule["interpolation"] == "linear":
        return np.interp(steps / total_steps, knots, values)
    return values[np.searchsorted(knots, (steps + STEP_TOLERANCE) / total_steps, "right") - 1]


def averaged(average: Any, params: Any, step: Any, total_steps: int, *, path: Path = TUNED) -> Any:
    """The average after update `step`, from that before and the parameters after it.

    Raises:
        ValueError: a total below 1.
    """
    kept = jnp.asarray(decay(total_steps, path=path))[step]
    return jax.tree.map(
        lambda old, new: kept.astype(new.dtype) * old + (1 - kept).astype(new.dtype) * new,
        average,
        params,
    )


@functools.cache
def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
