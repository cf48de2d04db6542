"""Before and after: paired trainings at the recipe's own schedules and at the tuned ones."""

from metatune.report.artefact_readme import verdict
from metatune.report.colours import CATEGORICAL, GRID, SOFT
from metatune.report.commands import typed
from metatune.report.html.parts import (
    Chapter,
    Figure,
    FigureRow,
    Table,
    dashed,
    label,
    layout,
    number,
    numbers,
)
from metatune.report.html.sources import Sources
from metatune.report.intervals import interval

DEFAULT, TUNED = SOFT, CATEGORICAL[0]


def chapter(found: Sources) -> Chapter:
    """The result, pair by pair, with its interval; or what there is to do for one."""
    result = {} if found.artefact is None else found.artefact.result
    if result.get("status") != "complete":
        lines = ["Nothing has been measured yet: that comes last, on seeds and text of its own."]
        commands = []
        if found.is_run:
            lines.append("A run that was stopped goes on with:")
            recipe = f"{found.path}/recipe.yaml"
            commands.append(typed("fit", recipe, "--out", found.path, "--resume"))
        return Chapter("result", "Before and after", lines, commands=commands)
    pairs = list(zip(result["held_out_seeds"], result["before"], result["after"], strict=True))
    names = [label(f"seed {seed}") for seed, _, _ in pairs]
    unit, height = result["unit"], 110 + 22 * (len(pairs) + 1)
    both = Figure(
        "result-pairs",
        "Held-out loss, pair by pair",
        [
            {
                "type": "scatter",
                "mode": "lines",
                "x": [value for _, a, b in pairs for value in (number(a), number(b), None)],
                "y": [name for name in names for _ in range(3)],
                "line": {"color": GRID, "width": 3},
                "hoverinfo": "skip",
                "showlegend": False,
            },
            *(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": name,
                    "x": numbers(values),
                    "y": names,
                    "marker": {"size": 10, "color": colour, "symbol": symbol},
                    "hovertemplate": f"{name}, %{{y}}: %{{x:.4f}}<extra></extra>",
                }
                for name, values, colour, symbol in (
                    ("default", [a for _, a, _ in pairs], DEFAULT, "circle-open"),
                    ("tuned", [b for _, _, b in pairs], TUNED, "circle"),
                )
            ),
        ],
        layout(f"held-out loss ({unit})", "", showlegend=True, yaxis=_seeds(names)),
        height,
    )
    between = interval(result)
    mean = number(result["difference"])
    bars = {} if between is None else {"error_x": {"array": [number(between.half)], "thickness": 2}}
    differences = Figure(
        "result-differences",
        "Tuned minus default: negative is better",
        [
            {
                "type": "scatter",
                "mode": "markers",
                "x": numbers(b - a for _, a, b in pairs),
                "y": names,
                "marker": {"size": 8, "color": TUNED},
                "hovertemplate": "%{y}: %{x:+.4f}<extra></extra>",
            },
            {
                "type": "scatter",
                "mode": "markers",
                "x": [mean],
                "y": ["mean"],
                "marker": {"size": 12, "color": TUNED, "symbol": "diamond"},
                "hovertemplate": "mean: %{x:+.4f}<extra></extra>",
                **bars,
            },
        ],
        layout(
            f"difference ({unit})",
            "",
            yaxis=_seeds([*names, "mean"]),
            xaxis={"rangemode": "tozero"},
            shapes=[dashed("x", 0.0)],
        ),
        height,
        "The bar is the 95 % interval of the mean (Student's t over the pairs)."
        if between
        else "Too few pairs for an interval.",
    )
    means = [f"{result[f'objective_{side}']:.4f}" for side in ("before", "after")]
    told = "" if between is None else f"{between.low:+.4f} to {between.high:+.4f}"
    heads = ("", "default", "tuned", "difference", "95 % interval")
    rows = [
        (f"mean of {len(pairs)}", *means, f"{result['difference']:+.4f}", told),
        *((f"seed {s}", f"{a:.4f}", f"{b:.4f}", f"{b - a:+.4f}", "") for s, a, b in pairs),
    ]
    decided = found.artefact is not None and found.artefact.verdict is not None
    said = verdict(result, decided=decided)
    lines = [
        f"Tuned is {said}."
        if between is not None and between.high < 0
        else f"The outcome: {said}.",
        "Whole trainings on the same seeds, which the search never saw, measured on text that it "
        f"never saw; {unit}, lower is better.",
    ]
    return Chapter(
        "result", "Before and after", lines, [FigureRow([both, differences])], [Table(heads, rows)]
    )


def _seeds(names: list[str]) -> dict[str, object]:
    """An axis of names, the first on top."""
    return {
        "type": "category",
        "categoryorder": "array",
        "categoryarray": names[::-1],
        "range": [-0.6, len(names) - 0.4],
        "ticks": "",
    }
