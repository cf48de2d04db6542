"""A plan as a table for people and as JSON for programs."""

from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from metatune.plan.alternatives import Plan
from metatune.plan.memory import Memory
from metatune.plan.mesh.axes import named
from metatune.plan.pace import Pace
from metatune.report.fitting import Fitting, Pieces

MIB, GIB = 2**20, 2**30
COLUMNS = (
    "way",
    "state",
    "carry",
    "activations",
    "logits",
    "device",
    "host",
    "disk",
    "outer step",
    "run",
    "fits",
)
QUARTILES = ("least", "lower", "median", "upper")


def table(plan: Plan) -> RenderableType:
    """A row for each way, or a few lines where rows don't fit, then the pick and why."""
    rows, blocks = Table(*COLUMNS, box=None, pad_edge=False), []
    for column in rows.columns:
        column.no_wrap = True
    for way in plan.alternatives:
        cells = [size(part) for part in _parts(way.memory)] if way.memory else ["-"] * 7
        about = "~" if way.counted else ""
        times = ["-"] * 2
        if way.pace:
            times = [about + duration(way.pace.outer_step), about + duration(way.pace.run)]
        fits = "yes" if plan.fits(way) else "no"
        rows.add_row(way.name, *cells, *times, fits)
        numbers = zip(COLUMNS[1:], (*cells, *times, fits), strict=True)
        blocks.append(Text(way.name, "bold"))
        blocks.append(Pieces([f"{name} {cell}" for name, cell in numbers if cell != "-"]))
    problems = [f"{way.name}: {way.problem}" for way in plan.alternatives if way.problem]
    count = plan.devices.count
    mesh = f" of each of {count}: {named(plan.devices)}" if count > 1 else ""
    lines = [
        f"device: {plan.device}, {size(plan.limit_bytes)} to use{mesh}",
        *problems,
        f"pick: {plan.why}",
        "state: parameters, optimizer state, adjoint; carry: what waits for the backward sweep; "
        "activations: other temporary arrays",
    ]
    if plan.pick and plan.pick.pace and plan.pick.pace.differences:
        lines.append(
            f"where growth dominates the hypergradient, differences of trainings take up to "
            f"{duration(plan.pick.pace.differences)} more in an outer step (outer.signal; "
            "metatune check tells whether it does at the recipe's own values)"
        )
    if plan.pick and plan.pick.pace and plan.pick.pace.choice:
        lines.append(
            "where it does and outer steps enough are left of a horizon, what is followed is "
            "chosen by measuring: all of that, differences included, takes up to "
            f"{duration(plan.pick.pace.choice)} more in an outer step, in the mean "
            "(outer.signal.cost)"
        )
    if any(way.counted for way in plan.alternatives):
        lines.append(
            "~: counted from the way that was timed; reverse takes more bytes than are counted"
        )
    return Group(Fitting((rows, Group(*blocks))), *(Text(line) for line in lines))


def as_json(plan: Plan) -> dict[str, Any]:
    """Bytes and seconds as numbers."""
    return {
        "device": plan.device,
        "devices": asdict(plan.devices),
        "limit_bytes": plan.limit_bytes,
        "pick": plan.pick.name if plan.pick else None,
        "why": plan.why,
        "alternatives": [
            {
                "name": way.name,
                "changes": list(way.changes),
                "fits": plan.fits(way),
                "problem": way.problem or None,
                "counted": way.counted,
                "bytes": way.memory and {**way.memory._asdict(), "device": way.memory.device},
                "seconds": way.pace and _seconds(way.pace),
            }
            for way in plan.alternatives
        ],
    }


def _seconds(pace: Pace) -> dict[str, Any]:
    quartiles = dict(zip(QUARTILES, pace.quartiles, strict=True))
    return {**pace._asdict(), "hypergradient_quartiles": quartiles}


def size(count: int) -> str:
    """Bytes in words: `1.5 GiB`."""
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / MIB:.1f} MiB"


def duration(seconds: float) -> str:
    """Seconds in words: `1 h 05 min`."""
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1e3:.0f} ms"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def _parts(memory: Memory) -> tuple[int, ...]:
    return (
        memory.state,
        memory.carry,
        memory.activations,
        memory.logits,
        memory.device,
        memory.host,
        memory.disk,
    )
