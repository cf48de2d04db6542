"""The course of a search in words: which point is the best, jumps, and whether it came to rest."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

RATE_REST: Final = 0.02
"""Median change of a log rate per outer step, above which rates still move."""

SHARE_REST: Final = 0.01
"""Share of the sequences that changes its domain per outer step, above which a mixture moves."""

NOISE: Final = 2.0
"""Standard errors of a trend beyond which it is one."""

GROWN: Final = 1.5
"""A rate's multiplier from which on it has grown."""

AT_REST: Final[Mapping[str, tuple[str, float]]] = {
    "learning_rates": ("rates", RATE_REST),
    "mixture": ("shares", SHARE_REST),
}
"""What is told of movements, by tunable: its name, and what counts as rest."""


def best_point(result: Mapping[str, Any]) -> str:
    """Which point of a search was taken."""
    if "best_outer_step" not in result:
        return "a point that isn't told"
    if result["best_outer_step"] < 0:
        return "the recipe's own, nothing being judged yet"
    average = ", the moving average there" if result.get("best_is_average") else ""
    return f"point {result['best_outer_step']} of {result['outer_steps']}{average}"


def chosen(result: Mapping[str, Any]) -> str:
    """The same, with why."""
    judged = result.get("best_outer_step", -1) >= 0
    return best_point(result) + ", the best in validation" * judged


def closing(result: Mapping[str, Any]) -> list[str]:
    """What there is to say of how a search ended: nothing of one that came to rest.

    Args:
        result: of an artefact; older ones don't tell of their search.
    """
    search = result.get("search")
    if search is None or not result.get("outer_steps"):
        return []
    last, trend = result["outer_steps"], search["held_out"]
    is_best = result["best_outer_step"] == last
    if is_best or _falls(trend):
        best = f"; point {last}, the last, is the best" if is_best else ""
        told = [f"the search was still improving when it ended: {_slope(trend)}{best}"]
        told += [f"{_moves(search['moved'], 0.0)} per outer step"] if search["moved"] else []
        return [f"{'; '.join(told)}. {_further(search)}"]
    if said := _moves(search["moved"], 1.0):
        return [
            f"the search had not come to rest when it ended: {said} per outer step, though "
            f"{_slope(trend)}. A lower outer.optimizer.learning_rate, or more "
            "outer.validation.seeds, will help more than further outer steps"
        ]
    return []


def jumped(result: Mapping[str, Any]) -> list[str]:
    """A sentence for each hypergradient that jumped."""
    found = result.get("search", {}).get("jumps", ())
    return [jump(each["step"], each["tunable"], each) for each in found]


def taken_back(step: int, found: Mapping[str, Any]) -> str:
    """What was taken back at a point, and why."""
    if found["rise"] is None:
        why = "a training that validates diverged there"
    else:
        why = (
            f"held-out rose by {found['rise']:.4f} ± {found['standard_error']:.4f} over that of "
            f"point {found['to']}, the best"
        )
    return (
        f"point {step}: {why}: back to point {found['to']}, and outer steps of {found['scale']:g} "
        "times the recipe's size from there"
    )


def divergences(metrics: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence for each kind of training that diverged, as far as the metrics tell of it."""
    validating = [line["step"] for line in metrics if _diverged_there(line)]
    beside = [line["step"] for line in metrics if line.get("diverged_sides")]
    kinds = (
        ("trainings that validate", validating, ": the search went back from there"),
        ("trainings on either side of the meta-parameters", beside, ""),
    )
    told = [
        f"{which} diverged at point{'s' * (len(steps) > 1)} {', '.join(map(str, steps))}{then}"
        for which, steps, then in kinds
        if steps
    ]
    where = [line for line in metrics if line.get("diverged")]
    return told + [ended(line) if line.get("ended") else first_bad(line) for line in where]


def ended(line: Mapping[str, Any]) -> str:
    """Where the training diverged that a search ended by, from a line of its metrics."""
    return f"the search ended at point {line['step']}: {_where(line['diverged'])}"


def first_bad(line: Mapping[str, Any]) -> str:
    """Where a training diverged at a point that a search went on from, likewise."""
    return f"point {line['step']}: {_where(line['diverged'])}"


def _where(found: Mapping[str, Any]) -> str:
    if "inner_step" not in found:
        return found["why"]
    what = f"the {found['training']} training of seed {found['seed']}"
    by_window: dict[int, list[str]] = {}
    for key, window in found["window"].items():
        by_window.setdefault(window, []).append(key)
    windows = "; ".join(
        f"window {window + 1} of {' and '.join(keys)}" for window, keys in by_window.items()
    )
    at = f"inner step {found['inner_step']} of {found['inner_steps']}"
    return f"{what} diverged at {at}{f' ({windows})' if windows else ''}"


def _diverged_there(line: Mapping[str, Any]) -> bool:
    found = line.get("taken_back")
    return found is not None and found.get("rise") is None


def jump(step: int, tunable: str, found: Mapping[str, Any]) -> str:
    """What a jump of a hypergradient's norm is likely to come from, and what it led to."""
    factor, steps = found["rate_factor"], found["inner_steps"]
    if factor is None:
        cause = f"likely the training of {steps} inner steps has become chaotic"
    elif factor >= GROWN:
        cause = (
            f"likely because rates have grown, to x{factor:.2f} of the recipe's at most: through "
            f"{steps} inner steps the adjoint grows with them, and becomes chaotic"
        )
    else:
        cause = (
            f"rates have hardly grown (x{factor:.2f} of the recipe's at most), so likely a seed "
            f"whose training of {steps} inner steps is chaotic"
        )
    return (
        f"point {step}: the hypergradient of {tunable} jumped to a norm of {found['norm']:.3g}, "
        f"{found['norm'] / found['before']:.0f} times the median of the points before it, "
        f"{found['before']:.3g}: {cause}; {found['response']}. Said once for a tunable; "
        "tune.learning_rates.max_multiplier bounds rates"
    )


def diverged(step: int, sides: int, lost: int) -> str:
    """What became of trainings on either side of the meta-parameters that diverged.

    Args:
        step: of the point.
        sides: how many diverged.
        lost: directions that are left out, for whatever reason.
    """
    left_out = f" ({lost} directions without a derivative in all)" if lost else ""
    return (
        f"point {step}: {sides} of the trainings on either side of the meta-parameters diverged: "
        "one whose counterpart didn't counts as a loss beyond all finite ones, so that the search "
        f"turns away from it; a pair of two is left out{left_out}. With a lower "
        "outer.estimator.step they stay nearer"
    )


def _falls(trend: Mapping[str, Any] | None) -> bool:
    """Whether the held-out loss went down beyond its noise."""
    if trend is None or trend["standard_error"] is None:
        return False
    return trend["per_step"] < -NOISE * trend["standard_error"]


def _slope(trend: Mapping[str, Any] | None) -> str:
    if trend is None:
        return "held-out was judged at one point alone"
    slope, error = trend["per_step"], trend["standard_error"]
    first, last = trend["points"]
    noise = "" if error is None else f" ± {error:.2g}"
    unknown = "" if error is not None else " (two points tell no noise)"
    way = "changed" if error is not None and abs(slope) <= NOISE * error else ""
    way = way or ("fell" if slope < 0 else "rose")
    size = f"{slope:+.2g}" if way == "changed" else f"{abs(slope):.2g}"
    return f"held-out {way} by {size}{noise} per outer step from point {first} to {last}{unknown}"


def _moves(moved: Mapping[str, float], least: float) -> str:
    """The movements beyond `least` times what counts as rest."""
    said = [
        f"{name} moved by {100 * moved[key]:.2g}%"
        + (f" ({100 * rest:.0f}% would be rest)" if least else "")
        for key, (name, rest) in AT_REST.items()
        if moved.get(key, -1.0) > least * rest
    ]
    return " and ".join(said)


def _further(search: Mapping[str, Any]) -> str:
    if search["ended"] == "patience":
        return "A larger outer.patience, with --resume, lets it go on"
    if search["more"] is None:
        return "More steps for the last of outer.phases, with --resume, let it go on"
    return f"To go on: {search['more']} with --resume"
