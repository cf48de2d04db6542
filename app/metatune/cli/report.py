"""`metatune report`: a run as one page to look at."""

from pathlib import Path
from typing import Annotated

import typer

from metatune.cli.root import Run, plain_errors


def report(
    run: Run,
    *,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The page; RUN/report.html by default, and RUN-report.html of an artefact.",
        ),
    ] = None,
) -> None:
    """Write a run as one page of HTML, which stands alone and opens without a network.

    The verdict, before and after, contestants, the search, all schedules, what of them matters, the
    certificate, cost, larger trainings, and how to export: as far as there is of each, also while
    the run is under way.
    """
    from metatune.recipe.file_errors import refuse_unmakeable
    from metatune.report import html
    from metatune.runs import files
    from metatune.runs.faults import RunFolderError

    with plain_errors(RunFolderError):
        found = html.read(run)
        file = html.place(run, out, is_run=found.is_run)
        refuse_unmakeable(file)
        page = html.page(found)
        file.parent.mkdir(parents=True, exist_ok=True)
        files.replace(file, page)
        typer.echo(f"report: {file}")
