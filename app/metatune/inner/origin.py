"""Since which inner step a hypergradient is dominated by growth, and where that is born."""

from typing import Any

import numpy as np

from metatune.hypergrad import Growth
from metatune.recipe.schema import GroupsSpec, InnerSpec, field_of, least, peak


def origin(
    inner: InnerSpec, growth: Growth, times: float, steps: int
) -> dict[str, Any]:  # plain JSON values
    """Where the adjoint grew to so many times its least, as plain JSON values.

    Args:
        inner: of the recipe.
        growth: of its adjoint, of several trainings in the median.
        times: as of `SignalSpec.growth`.
        steps: inner steps of the training.

    Returns:
        `before`, the inner step before which the hypergradient is dominated by growth; `steepest`,
        the two inner steps between which the adjoint grew fastest, and by what factor `per_step`
        there, null if that isn't finite; `warmup`, the inner steps of that; `eps_root` of the
        optimizer, null where it has none; and `rate`, its peak. Of several optimizers side by
        side the smallest eps_root and the largest peak, and `fields`, where the recipe has them.
    """
    exponents = np.asarray(growth.exponents)
    exponents = np.median(exponents.reshape(len(exponents), -1), axis=1)
    exponents = np.where(np.isnan(exponents), 0.0, exponents)
    at = growth.steps - growth.steps[-1] + steps
    # Of adjoints that aren't finite, only that they grew is known.
    logs = np.append(np.cumsum((exponents * np.diff(at))[::-1])[::-1], 0.0)
    grown = logs - np.minimum.accumulate(logs[::-1])[::-1]
    beyond = np.flatnonzero(grown >= np.log(times))
    last = int(beyond[-1]) if len(beyond) else 0
    steepest = int(np.argmax(exponents[: last + 1]))
    with np.errstate(over="ignore"):
        per_step = float(np.exp(exponents[steepest]))
    fields = {key: field_of(inner.optimizer, key) for key in ("eps_root", "learning_rate")}
    return {
        "before": int(at[last]) or int(at[1]),
        "steepest": [int(at[steepest]), int(at[steepest + 1])],
        "per_step": per_step if np.isfinite(per_step) else None,
        "warmup": round(inner.optimizer.schedule.warmup * steps),
        "eps_root": least(inner.optimizer, "eps_root"),
        "rate": peak(inner.optimizer),
        **({"fields": fields} if isinstance(inner.optimizer, GroupsSpec) else {}),
    }
