"""What there is to say of hypergradients that are dominated by growth."""

from collections.abc import Mapping, Sequence
from typing import Any

from metatune.report.search import GROWN

EARLY = 2
"""Times the warmup, up to which inner steps are early ones."""


def first_dominated(
    before: Sequence[Mapping[str, Any]], line: Mapping[str, Any]
) -> list[Mapping[str, Any]]:
    """The windows whose hypergradient is dominated by growth for the first time in a search.

    Args:
        before: the metrics so far.
        line: of a point.
    """
    told = {
        (each["tunable"], each["window"])
        for earlier in before
        for each in earlier.get("blended", {}).get("windows", ())
    }
    found = line.get("blended", {}).get("windows", ())
    return [each for each in found if (each["tunable"], each["window"]) not in told]


def dominated(
    step: int,
    found: Sequence[Mapping[str, Any]],
    origin: Mapping[str, Any],
    rate_factor: float | None,
) -> str:
    """Which windows are dominated by growth, since when, why, what is done, and what helps.

    Args:
        step: the point of the search.
        found: blocks that are so for the first time, as of `Blended.line`; of runs of before
            `tunable`, `window` from 0, and `growth` alone.
        origin: where the growth is born, as of `inner.origin`.
        rate_factor: the largest multiplier of a learning rate; None if rates aren't tuned.
    """
    windows: dict[str, list[str]] = {}
    for each in found:
        windows.setdefault(each["tunable"], []).append(str(each["window"] + 1))
    which = ", ".join(
        f"{key} window{'s' if len(numbers) > 1 else ''} {', '.join(numbers)}"
        for key, numbers in windows.items()
    )
    most = max((each["growth"] or float("inf") for each in found), default=0.0)
    first, second = origin["steepest"]
    pace = f", x{origin['per_step']:.2f} a step" if origin["per_step"] else ""
    cause, cure = _cause(origin, rate_factor)
    return (
        f"point {step}: before inner step {origin['before']} the hypergradient is dominated by "
        f"growth (the adjoint is {most:.3g} times its least there, and grew fastest from inner "
        f"step {second} back to {first}{pace}): {which}. {cause}. "
        f"There, differences of whole trainings are followed instead{_told(found)}. {cure}"
    )


def _told(found: Sequence[Mapping[str, Any]]) -> str:
    """How far slopes that were measured are told from noise, and what becomes of the others."""
    said = [
        f"{each['tunable']} window {each['window'] + 1} {each['errors']:.1f} standard errors"
        for each in found
        if each.get("trainings") and each["errors"] is not None
    ]
    waiting = any(each.get("kept", 1.0) < 0.5 and not each["measured"] for each in found)
    text = f" (slopes from zero: {', '.join(said)})" if said else ""
    return text + (", those that are still to be measured stay" if waiting else "")


def _cause(origin: Mapping[str, Any], rate_factor: float | None) -> tuple[str, str]:
    """The likely cause, and what helps against it."""
    early = origin["steepest"][0] <= EARLY * origin["warmup"] or not origin["steepest"][0]
    if rate_factor is not None and rate_factor >= GROWN:
        return (
            f"Likely because rates have grown, to x{rate_factor:.2f} of the recipe's at most",
            "tune.learning_rates.max_multiplier bounds them",
        )
    fields = origin.get("fields") or {}
    if early and origin["eps_root"] is not None:
        root = fields.get("eps_root", "inner.optimizer.eps_root")
        return (
            "Likely the optimizer's first steps, while its second moments are small",
            f"A longer inner.optimizer.schedule.warmup, or {root} (now "
            f"{origin['eps_root']:g}) of 1e-8, makes them smoother",
        )
    rate = fields.get("learning_rate", "inner.optimizer.learning_rate")
    return (
        f"Likely a rate that is high for this training, {origin['rate']:g} at its peak",
        f"A lower {rate}, or fewer inner.steps, makes it smoother",
    )
