"""`metatune show`: a result, and what it fits."""

from typing import Annotated

import typer

from metatune.cli.root import Run, plain_errors, wrapped


def show(
    run: Run,
    *,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL_DIR|RECIPE",
            help="Compare parameters, tokenizer and domains instead; exits with 1 if they differ.",
        ),
    ] = None,
) -> None:
    """Show what was tuned, before and after, and the schedules as small plots."""
    from rich.console import Console

    from metatune import artefact
    from metatune.fit.run_folder import RunFolder, RunFolderError
    from metatune.report import terminal

    with plain_errors(RunFolderError):
        tuned = artefact.load(run)
        if against is not None:
            from metatune.artefact.comparison import differences
            from metatune.fit.comparing.counterpart import counterpart
            from metatune.fit.comparing.shapes import NO_SHAPES, shapes_of_artefact

            shapes = shapes_of_artefact(tuned)
            if not shapes:
                typer.echo(NO_SHAPES, err=True)
            found = differences(tuned, shapes, counterpart(against))
            typer.echo(wrapped("\n".join(found) or f"{against}: matches the artefact"))
            raise typer.Exit(1 if found else 0)
        Console().print(terminal.summary(tuned, RunFolder(run).read_metrics()))
