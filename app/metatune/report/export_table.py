"""What `metatune export --list` prints: each target and what it can express."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from metatune.artefact.exporters import EXPORTERS

HEADS = {
    "rates": "rates",
    "curves": "curves",
    "mixture": "mixture",
    "moving_mixture": "over time",
    "loss_weights": "loss weights",
    "moving_loss_weights": "over time",
    "class_weights": "class weights",
    "optimizer": "optimizer",
    "clip_norm": "clip norm",
    "elements": "in tensors",
    "initialisation": "start",
    "learned_update": "learned update",
    "loss_terms": "loss terms",
    "rater": "rater",
    "auxiliary_head": "auxiliary head",
}
STYLES = {"exact": "green", "quantised": "cyan", "fitted": "yellow", "no": "dim"}


def table() -> Table:
    """A row for each target: `exact`, `quantised`, `fitted` or `no` for each capability."""
    rows = Table(title="targets of metatune export", title_justify="left", box=None, pad_edge=False)
    rows.caption = (
        "rates: one for each parameter; curves: each moving over training by itself. What is 'no' "
        "and was tuned is refused, or dropped with --lossy."
    )
    rows.caption_justify = "left"
    rows.add_column("target", no_wrap=True)
    for head in HEADS.values():
        rows.add_column(head)
    for name, exporter in EXPORTERS.items():
        supports = [Text(value, STYLES[value]) for value in exporter.capabilities]
        rows.add_row(name, *supports)
    return rows


def show() -> None:
    """Prints the table, beyond the width of a narrow terminal rather than cut off."""
    console, rows = Console(), table()
    wide = console.options.update(max_width=1000)
    console.width = max(console.width, console.measure(rows, options=wide).maximum)
    console.print(rows)


def markdown() -> str:
    """The same as a table in Markdown, for README.md."""
    heads = ["target", "version", *HEADS.values()]
    rule = ["---"] * len(heads)
    rows = [
        [f"`{name}`", exporter.version, *exporter.capabilities]
        for name, exporter in EXPORTERS.items()
    ]
    return "".join(f"| {' | '.join(row)} |\n" for row in [heads, rule, *rows])
