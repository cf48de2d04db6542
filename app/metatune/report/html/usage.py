"""How to use what was tuned, and what it was made from."""

from metatune.artefact.files import SIMPLE
from metatune.report import usage as words
from metatune.report.artefact_readme import provenance_lines
from metatune.report.commands import typed
from metatune.report.html.parts import Chapter, Table
from metatune.report.html.sources import Sources


def exports(found: Sources) -> Chapter | None:
    """What to do by the verdict, and a command for each target that takes all that was tuned."""
    if (tuned := found.artefact) is None:
        return None
    path, lines = found.path, words.advice(tuned)
    if found.simple is not None:
        path, tuned = found.simple
    elif words.takes_simple(tuned):
        lines = [
            f"The verdict is to use the simple schedules, those of `{SIMPLE}` in the folder of the "
            "run, which isn't here: `metatune verdict` writes it. The commands are for all that "
            "was tuned."
        ]
    told = words.commands(tuned, path)
    table = Table(
        ("target", "what it writes", "command"),
        [(each.target, each.summary, each.command) for each in told],
        (1, 2),
        code=(2,),
    )
    after = [
        "Each command writes a folder that works without metatune.",
        *words.placeholders(told),
        f"These express all that was tuned; `{typed('export', '--list')}` lists those that can "
        "express a part too.",
    ]
    return Chapter("export", "How to export", lines, (), [table] if told else [], (), after)


def provenance(found: Sources) -> Chapter | None:
    """What the artefact was made from."""
    if found.artefact is None or not (rows := provenance_lines(found.artefact)):
        return None
    return Chapter("provenance", "Made from", tables=[Table(("", ""), rows, (1,))])
