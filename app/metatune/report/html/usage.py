"""How to use what was tuned, and what it was made from."""

from metatune.artefact.capabilities import asked, dropped
from metatune.artefact.exporters import EXPORTERS
from metatune.report.artefact_readme import provenance_lines, worth_using
from metatune.report.html.commands import typed
from metatune.report.html.parts import Chapter, Table
from metatune.report.html.sources import Sources


def exports(found: Sources) -> Chapter | None:
    """A command for each target that takes all that was tuned."""
    if (tuned := found.artefact) is None:
        return None
    lines = []
    if tuned.verdict is not None:
        lines.append("What the verdict above says comes first; for whoever wants the schedules:")
    elif not worth_using(tuned.result):
        lines.append(
            "The schedules were not measured to be better than the defaults: keep your defaults. "
            "To look into them nevertheless:"
        )
    else:
        lines.append("Each command writes a folder that works without metatune.")
    whole = {
        name: exporter
        for name, exporter in EXPORTERS.items()
        if not dropped(tuned, exporter.capabilities)
    }
    moves = "moving_mixture" in asked(tuned)
    rows = [
        (
            name,
            exporter.summary,
            typed("export", found.path, "--to", name, "--out", f"tuned-{name}")
            + (" --sequences-per-step N" if moves and exporter.counts_sequences else ""),
        )
        for name, exporter in whole.items()
    ]
    after = [
        f"These express all that was tuned; `{typed('export', '--list')}` lists those that can "
        "express a part too."
    ]
    table = (
        [Table(("target", "what it writes", "command"), rows, (1, 2), code=(2,))] if rows else []
    )
    return Chapter("export", "How to export", lines, (), table, (), after)


def provenance(found: Sources) -> Chapter | None:
    """What the artefact was made from."""
    if found.artefact is None or not (rows := provenance_lines(found.artefact)):
        return None
    return Chapter("provenance", "Made from", tables=[Table(("", ""), rows, (1,))])
