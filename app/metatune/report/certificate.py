"""A certificate as tables for people."""

import math
from collections.abc import Mapping
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

STYLES: Final = {"green": "bold green", "amber": "bold yellow", "red": "bold red"}


def table(document: Mapping[str, Any]) -> RenderableType:
    """The verdict with its causes, a row for each check, and the numbers by tunable.

    Args:
        document: a certificate, as JSON has it.
    """
    checks = document["checks"]
    parts: list[RenderableType] = [
        *headline(document),
        Text(_about(document), "dim"),
        *(Text(f"  {limit}", "dim") for limit in document.get("limits", ())),
        _overview(checks),
    ]
    if checks["differences"]:
        parts.append(_directions(checks["differences"]))
    if checks["signal"]:
        parts.append(_signal(checks["signal"]))
    if checks["horizons"] and checks["horizons"]["rows"]:
        parts.append(_horizons(checks["horizons"]))
    return Group(*parts)


def headline(document: Mapping[str, Any]) -> list[Text]:
    """The verdict and its causes, a line each."""
    verdict = document["verdict"]
    return [
        Text.assemble("gradient certificate: ", (verdict, STYLES[verdict])),
        *(Text(f"  {cause}") for cause in document["causes"]),
    ]


def level(check: Mapping[str, Any]) -> str:
    """Green, amber or red; or that noise left nothing to judge."""
    return "not resolved" if check.get("hidden") else check["level"]


def number(value: float | None) -> str:
    """A number in few digits; `none` for null."""
    return "none" if value is None else f"{value:.3g}"


def summaries(checks: Mapping[str, Any]) -> dict[str, str]:
    """Each check that was made, in a sentence."""
    return {name: SUMMARIES[name](check) for name, check in checks.items() if check}


def _about(document: Mapping[str, Any]) -> str:
    window = f", the last {document['window']} differentiated" if document["window"] else ""
    own = document.get("recipe_steps", document["steps"])
    short = "" if own == document["steps"] else f" (the recipe has {own})"
    phases = document.get("phases", 1)
    first = f" in the first of {phases} phases" if phases > 1 else ""
    return (
        f"{document['estimator']}{first}, {document['meta_parameters']} meta-parameters, "
        f"{document['steps']} inner steps{short}{window}, {document['settings']['seeds']} seeds"
    )


def _overview(checks: Mapping[str, Any]) -> Table:
    rows = _table("check", "", "")
    said = summaries(checks)
    for name, check in checks.items():
        found = Text(level(check), STYLES[check["level"]]) if check else Text("not made")
        rows.add_row(name, found, said.get(name, "its numbers would not be finite"))
    return rows


def _training(check: Mapping[str, Any]) -> str:
    if not check["finite_losses"]:
        return "inner losses or objectives are not finite"
    if not check["finite_gradients"]:
        return "hypergradients are not finite, though every inner loss is"
    return (
        f"objective {number(check['objective_before'])} before, "
        f"{number(check['objectives'][0])} after"
    )


def _differences(check: Mapping[str, Any]) -> str:
    agreement = check["sign_agreement"]
    signs = "no sign is clear" if agreement is None else f"{100 * agreement:.0f}% of signs agree"
    return (
        f"{signs} ({check['resolved']} of {len(check['rows'])} clear), "
        f"Spearman {number(check['spearman'])}, "
        f"relative error {number(check['relative_error'])}, "
        f"noise of the differences {number(check['relative_noise'])}"
    )


def _agreement(check: Mapping[str, Any]) -> str:
    return check["problem"] or (
        f"relative error {number(check['relative_error'])} against {check['other']}"
    )


def _of_signal(check: Mapping[str, Any]) -> str:
    tunables = check["tunables"].items()
    norms = ", ".join(f"{key} {number(its['whole']['norm'])}" for key, its in tunables)
    return f"signal to noise of {check['seeds']} seeds' mean: {norms}"


def _metasmoothness(check: Mapping[str, Any]) -> str:
    here = f"{number(check['value'])} at a step of {number(check['step'])}"
    foreseen = check.get("foreseen", check["value"])
    if foreseen == check["value"]:
        return here
    return f"{here}; {number(foreseen)} foreseen at the recipe's own horizon"


def _of_horizons(check: Mapping[str, Any]) -> str:
    if not check["rows"]:
        return "no shorter horizon: its windows would have no step"
    last = check["rows"][-1]
    tunables = last["tunables"].values()
    known = [(its["clear_share"], its["clear"]) for its in tunables if its["clear"]]
    if not known:
        return f"{last['name']}: no sign stands out of the noise"
    share, clear = max(known)
    return f"{last['name']}: {100 * share:.0f}% of {clear} clear signs differ"


def _growth(check: Mapping[str, Any]) -> str:
    if not check["windows"]:
        return "no adjoint behind windows to watch"
    # Null is of an adjoint that isn't finite.
    times = {name: math.inf if its is None else its for name, its in check["windows"].items()}
    most = max(times, key=lambda name: times[name])
    said = f"the adjoint is {times[most]:.3g} times its least later behind {most}"
    if not check["dominated"]:
        return f"{said}, the most of {len(times)}"
    born, names = check["origin"], ", ".join(check["dominated"])
    first, second = born["steepest"]
    return (
        f"{said}; dominated by growth before inner step {born['before']}: {names}; it grew fastest "
        f"from inner step {second} back to {first}"
    )


def _linearity(check: Mapping[str, Any]) -> str:
    left = check["left"]
    share = "not finite numbers" if left is None else f"{100 * left:.0f}% of the derivative is left"
    return f"{share} over a search's step of {number(check['step'])}"


def _choices(check: Mapping[str, Any]) -> str:
    return (
        f"{100 * check['flipped']:.2g}% of {check['choices']:,} choices of experts flip over a "
        f"search's step of {number(check['step'])}"
    )


SUMMARIES: Final = {
    "training": _training,
    "differences": _differences,
    "agreement": _agreement,
    "signal": _of_signal,
    "metasmoothness": _metasmoothness,
    "horizons": _of_horizons,
    "growth": _growth,
    "linearity": _linearity,
    "choices": _choices,
}


def _directions(check: Mapping[str, Any]) -> Table:
    columns = {
        "estimator": "derivative",
        "± its error": "error",
        "difference": "difference",
        "± noise": "noise",
        "at ε": "epsilon",
    }
    rows = _table("along", *columns)
    for row in check["rows"]:
        values = (row.get(name) for name in columns.values())
        rows.add_row(row["name"], *map(number, values))
    return rows


def _signal(check: Mapping[str, Any]) -> Table:
    rows = _table("signal to noise", "norm", "median coordinate", "norm by window")
    for key, its in check["tunables"].items():
        windows = " ".join(number(window["norm"]) for window in its["windows"])
        rows.add_row(key, number(its["whole"]["norm"]), number(its["whole"]["coordinate"]), windows)
    return rows


def _horizons(check: Mapping[str, Any]) -> Table:
    title = f"signs that differ from {check['steps']} steps"
    rows = _table(title, "tunable", "all", "clear", "of them clear")
    for row in check["rows"]:
        for key, its in row["tunables"].items():
            rows.add_row(
                row["name"],
                key,
                number(its["share"]),
                number(its["clear_share"]),
                str(its["clear"]),
            )
    return rows


def _table(*heads: str) -> Table:
    rows = Table(*heads, box=None, pad_edge=False)
    rows.columns[0].no_wrap = True
    return rows
