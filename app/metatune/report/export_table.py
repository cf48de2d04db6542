"""What `metatune export --list` prints: each target and what it can express."""

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from metatune.artefact.capabilities import HEADS
from metatune.artefact.exporters import EXPORTERS
from metatune.report.fitting import UNBOUNDED, Fitting

CAPTION = (
    "rates: one for each parameter; curves: each moving over training by itself. What is 'no' "
    "and was tuned is refused, or dropped with --lossy."
)
STYLES = {"exact": "green", "quantised": "cyan", "fitted": "yellow", "no": "dim"}


def table() -> Table:
    """A row for each target: `exact`, `quantised`, `fitted` or `no` for each capability."""
    rows = Table(title="targets of metatune export", title_justify="left", box=None, pad_edge=False)
    rows.caption = CAPTION
    rows.caption_justify = "left"
    rows.add_column("target", no_wrap=True)
    for head in HEADS.values():
        rows.add_column(head)
    for name, exporter in EXPORTERS.items():
        supports = [Text(value, STYLES[value]) for value in exporter.capabilities.values()]
        rows.add_row(name, *supports)
    return rows


def lists() -> Group:
    """The same for narrow terminals: under each target what it can express, and how well."""
    parts: list[RenderableType] = [Text("targets of metatune export")]
    for name, exporter in EXPORTERS.items():
        parts.append(Text(name, "bold"))
        for level, style in STYLES.items():
            names = [HEADS[each] for each, said in exporter.capabilities.items() if said == level]
            if names:
                line = Text.assemble((f"{level}: ", style), ", ".join(names))
                parts.append(Padding(line, (0, 0, 0, 2)))
    return Group(*parts, Text(CAPTION))


def show() -> None:
    """Prints the table, or in a terminal that is too narrow for it the lists.

    What isn't a terminal gets the table, a line for each target.
    """
    console, rows = Console(), table()
    if not console.is_terminal:
        console.width = UNBOUNDED
    console.print(Fitting((rows, lists())))


def markdown() -> str:
    """The same as a table in Markdown, for docs/exports.md."""
    heads = ["target", "version", *HEADS.values()]
    rule = ["---"] * len(heads)
    rows = [
        [f"`{name}`", exporter.version, *exporter.capabilities.values()]
        for name, exporter in EXPORTERS.items()
    ]
    return "".join(f"| {' | '.join(row)} |\n" for row in [heads, rule, *rows])


def meanings() -> str:
    """What each number in the files of a target means there, as a table in Markdown."""
    rows = [["in", "number", "means there"], ["---"] * 3]
    for name, exporter in EXPORTERS.items():
        rows += [[f"`{name}`", f"`{field}`", said] for field, said in exporter.numbers.items()]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)
