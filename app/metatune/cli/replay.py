"""`metatune replay`: training again, to compare."""

from typing import Annotated

import typer

from metatune.cli.root import Run, plain_errors


def replay(
    run: Run,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Train again from the artefact alone and compare; exits with 1 if the numbers disagree.

    On the type of machine that the run was made on every number must come back bit for bit,
    elsewhere within the spread over the seeds of the result.
    """
    import json

    from rich.console import Console

    from metatune.fit.process.allocation import keep_memory
    from metatune.fit.process.compilation import keep_compiled
    from metatune.fit.replaying import replay as replays
    from metatune.report import replay as report

    with plain_errors():
        keep_compiled()
        keep_memory()
        found = replays.replay(run, Console(stderr=as_json))
        document = found.as_json()
        typer.echo(json.dumps(document, indent=1) if as_json else "\n".join(report.lines(document)))
        if not found.agrees:
            raise typer.Exit(1)
