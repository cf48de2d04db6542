"""How the adjoint of an outer step grew on its way back, or its tangents on theirs forward.

And what that leaves: how much of the hypergradient comes from which window of training.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from metatune.hypergrad import Growth
from metatune.tunables import Tunable
from metatune.tunables.blocks import blocks

MOST: Final = 64
"""Boundaries in a line of the metrics; of more, evenly spread ones."""


def growth_line(growth: Growth | None) -> dict[str, Any] | None:
    """What a line of the metrics has of an adjoint's growth, or of tangents'.

    Args:
        growth: of one training, or of several; None where there is neither.

    Returns:
        `steps`, the inner steps of boundaries between segments; `params` and `opt_state`, norms of
        the derivative of the objective in the state before each, of several trainings the largest,
        null where it isn't finite; and `damped`, by what factor the adjoint was scaled on its whole
        way, of several trainings the least. In forward mode norms are those of the tangents, `of`
        says so, and nothing is damped.
    """
    if growth is None:
        return None
    chosen = np.unique(np.linspace(0, len(growth.steps) - 1, MOST).round().astype(int))
    line = {
        "steps": np.asarray(growth.steps)[chosen].tolist(),
        "params": _largest(growth.params)[chosen].tolist(),
        "opt_state": _largest(growth.opt_state)[chosen].tolist(),
    }
    if growth.tangents:
        return {"of": "tangents", **line}
    damped = np.asarray(growth.damped, np.float64).sum(axis=0)
    return line | {"damped": float(np.exp(np.min(damped)))}


def window_norms(
    tunables: Sequence[Tunable], gradient: Mapping[str, Any]
) -> dict[str, list[float | None]]:
    """The norm of a hypergradient in each window of what is windowed; null for one not finite."""
    found: dict[str, list[float | None]] = {}
    for block in blocks(tunables):
        with np.errstate(over="ignore", invalid="ignore"):
            norm = float(np.linalg.norm(block.row(gradient)))
        found.setdefault(block.key, []).append(norm if np.isfinite(norm) else None)
    return found


def growth_scalars(line: Mapping[str, Any]) -> dict[str, float]:
    """The same for TensorBoard: the largest norm in that of the end, and the factor of a cap.

    Of tangents, which begin at zero, the largest norm in that of the first boundary with any.
    """
    norms = [norm for norm in line["params"] if norm is not None]
    if line.get("of") == "tangents":
        begun = next((norm for norm in norms if norm > 0), None)
        return {} if begun is None else {"tangents/largest": max(norms) / begun}
    found = {"adjoint/damped": line["damped"]}
    if norms and line["params"][-1]:
        found["adjoint/largest"] = max(norms) / line["params"][-1]
    return found


def growth_curves(line: Mapping[str, Any], steps: int) -> dict[str, np.ndarray]:
    """Norms over the inner steps, [steps] each, on lines between boundaries on a log scale.

    Args:
        line: as of `growth_line`.
        steps: to be drawn at most.

    Returns:
        By what they are of; empty where no norm is above zero at two boundaries.
    """
    at, found = np.asarray(line["steps"]), {}
    over = np.linspace(at[0], at[-1], min(steps, int(at[-1] - at[0]) + 1))
    for key, name in (("params", "parameters"), ("opt_state", "optimizer state")):
        norms = np.asarray([0.0 if norm is None else norm for norm in line[key]])
        if np.count_nonzero(norms) > 1:
            known = norms > 0
            found[name] = np.exp(np.interp(over, at[known], np.log(norms[known])))
    return found


def _largest(norms: Any) -> np.ndarray:
    """Of several trainings, [n]; None where it isn't finite."""
    of_each = np.asarray(norms, np.float64)
    of_all = of_each.reshape(len(of_each), -1).max(axis=1)
    return np.asarray([norm if np.isfinite(norm) else None for norm in of_all], object)
