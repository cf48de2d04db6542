"""What there is to say of hypergradients that are dominated by growth."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from metatune.report.search import GROWN

EARLY = 2
"""Times the warmup, up to which inner steps are early ones."""

WORDS: Final[Mapping[str, str]] = {
    "exact": "the exact hypergradient",
    "damped": "an adjoint capped at its norm at the end",
    "restarted": "an adjoint that begins anew where it exceeds ten times its norm at the end",
}
"""What each way to a hypergradient is called."""


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
    unmeasured: str = "",
) -> str:
    """Which windows are dominated by growth, since when, why, what is done, and what helps.

    Args:
        step: the point of the search.
        found: blocks that are so for the first time, as of `Blended.line`; of runs of before
            `tunable`, `window` from 0, and `growth` alone.
        origin: where the growth is born, as of `inner.origin`.
        rate_factor: the largest multiplier of a learning rate; None if rates aren't tuned.
        unmeasured: why no way was chosen there; empty where one was.
    """
    most = max((each["growth"] or float("inf") for each in found), default=0.0)
    first, second = origin["steepest"]
    pace = f", x{origin['per_step']:.2f} a step" if origin["per_step"] else ""
    cause, cure = _cause(origin, rate_factor)
    return (
        f"point {step}: before inner step {origin['before']} the hypergradient is dominated by "
        f"growth (the adjoint is {most:.3g} times its least there, and grew fastest from inner "
        f"step {second} back to {first}{pace}): {_windows(found)}. {cause}. "
        f"{_instead(found, unmeasured)}. {cure}"
    )


def chosen(step: int, found: Mapping[str, Any]) -> str:
    """Which way is followed from a point on, of how many trainings, and why.

    Args:
        step: the point.
        found: `chosen` of its line, with what was measured.
    """
    seen, several = found["measured"], found["trainings"]
    way = WORDS.get(found["way"], str(found["way"]))
    way += f", {several} training{'s' * (several > 1)} for each hypergradient"
    if not seen["carried"]:
        way = "differences where growth dominates, the exact hypergradient elsewhere"
    sure = [each for each in seen["windows"] if each["dominated"] and each["sure"]]
    judged = [each for each in seen["windows"] if each["dominated"]]
    count = len(seen["carried"]) + len(seen["differences"])
    told = (
        f"of {count} window{'s' * (count > 1)} that growth dominates {len(judged)} can be judged "
        f"by differences of {seen['trainings']} trainings, which tell the slope of {len(sure)}"
    )
    if seen["carried"]:
        told += (
            f"; this hypergradient is off by less than half of it in {_windows(seen['carried'])}"
        )
    elif sure:
        told += "; no hypergradient that can be paid is off by less than half of it"
    further = ""
    if seen["differences"]:
        further = f". By differences go {_windows(seen['differences'])}"
    return (
        f"point {step}: signal: {way}: {told}{further}. The "
        f"{seen['outer_steps']} outer steps of this horizon take up to {seen['times']:.1f} times "
        "their plain hypergradients, this measurement included (outer.signal.cost)"
    )


def ways(result: Mapping[str, Any]) -> list[str]:
    """A sentence for each choice of a search, of an artefact's result; older ones have none."""
    found = result.get("search", {}).get("chosen", ())
    return [chosen(each["step"], each) for each in found]


def _windows(found: Sequence[Mapping[str, Any]]) -> str:
    """Windows by tunable, counted from one."""
    windows: dict[str, list[str]] = {}
    for each in found:
        windows.setdefault(each["tunable"], []).append(str(each["window"] + 1))
    return ", ".join(
        f"{key} window{'s' if len(numbers) > 1 else ''} {', '.join(numbers)}"
        for key, numbers in windows.items()
    )


def _instead(found: Sequence[Mapping[str, Any]], unmeasured: str) -> str:
    """What is followed there."""
    beside = [each for each in found if each.get("weight") != 1.0]
    text = "There, the hypergradient is still followed, as it was measured to tell the slope"
    if beside:
        which = "There" if len(beside) == len(found) else f"In {_windows(beside)}"
        text = f"{which}, differences of whole trainings are followed instead{_told(beside)}"
    return text + (f"; no other way was looked for, as {unmeasured}" if unmeasured else "")


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
