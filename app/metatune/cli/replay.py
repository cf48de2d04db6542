"""`metatune replay`: training again, to compare."""

from typing import Annotated

import typer

from metatune.cli.root import Run, plain_errors
from metatune.runs import processes


def replay(
    run: Run,
    *,
    devices: Annotated[
        str | None,
        typer.Option(
            metavar="AXIS=PARTS,...",
            help="Another mesh than the run's, on which numbers agree to rounding.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Train again from the artefact alone and compare; exits with 1 if the numbers disagree.

    On the type of machine that the run was made on every number must come back bit for bit,
    elsewhere within the spread over the seeds of the result.
    """
    import json
    from functools import partial

    from rich.console import Console

    from metatune.fit.process.allocation import keep_memory
    from metatune.fit.process.compilation import keep_compiled
    from metatune.fit.replaying import replay as replays
    from metatune.plan.mesh import override, settled
    from metatune.report import replay as report

    with plain_errors(processes.ProcessesError), processes.joined():
        keep_compiled()
        keep_memory()
        console = Console(stderr=as_json, quiet=not processes.first())
        changes = () if devices is None else (override(devices),)
        found = replays.replay(run, console, changes, partial(settled, folder=run))
        document = found.as_json()
        typer.echo(json.dumps(document, indent=1) if as_json else "\n".join(report.lines(document)))
    if not found.agrees:
        raise typer.Exit(1)
