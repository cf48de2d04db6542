"""`metatune transfer`: whether a gain survives on larger trainings."""

from typing import Annotated

import typer

from metatune.cli.root import Run, plain_errors, typed
from metatune.runs import stops


def transfer(
    run: Run,
    further: Annotated[
        list[str] | None, typer.Argument(metavar="[AXIS=FACTORS]...", help="More of --ladder.")
    ] = None,
    *,
    ladder: Annotated[
        str,
        typer.Option(
            metavar="AXIS=FACTORS",
            help="Rungs above the proxy: width, depth, steps or all, in its sizes; "
            "width=2,4 depth=2 all=2, say.",
        ),
    ] = "all=2",
    rule: Annotated[
        str | None,
        typer.Option(
            help="How schedules follow the sizes: none, mup, completep, complete_d_p (default)."
        ),
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=2, help="Trainings of each candidate at each rung.")
    ] = 5,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what it takes, and train nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Carry what was tuned up a ladder of larger trainings, and say whether its gain survives.

    At every rung the default and the tuned schedules, both carried by the rule, are trained on the
    same unseen seeds, with all rates at x1/2, x1 and x2 (and x0.1 of a tuned mixture). Before a
    rung is trained its gain is predicted by those below. Writes transfer.json into the artefact;
    goes on where it was stopped or killed.
    """
    import json

    from rich.console import Console

    from metatune.fit.process.allocation import keep_memory
    from metatune.fit.process.compilation import keep_compiled
    from metatune.fit.run_folder import RunFolder, RunFolderError
    from metatune.fit.telling.progress import tokenizing
    from metatune.inner import InnerTraining, prepare_file
    from metatune.ladder import climb, rungs
    from metatune.ladder.progress import Display
    from metatune.ladder.record import LadderRecord
    from metatune.plan.table import duration
    from metatune.report import transfer as report

    console = Console(stderr=as_json)

    def proxy(folder: RunFolder) -> InnerTraining:
        with tokenizing(console) as listener:
            return prepare_file(folder.recipe, (), listener, folder.day())

    words = [*ladder.split(), *(further or ())]
    said = typed("transfer", str(run), "--ladder", *words, "--seeds", str(seeds))
    again = said if rule is None else f"{said} --rule {rule}"
    with plain_errors(RunFolderError):
        wanted = rungs.parse(words)
        keep_compiled()
        keep_memory()
        found = climb.ladder(run, proxy, wanted, rule, seeds)
        record = LadderRecord(found.folder.path, found.identity)
        left = found.left(record)
        for line in report.plan(found, left):
            console.print(line, highlight=False, soft_wrap=True)
        if plan:
            took = duration(climb.seconds(found, record))
            console.print(f"expected: about {took} on this machine", highlight=False)
            return
        stops.farewell(f"interrupted; what was trained is in {run}; go on with\n  {again}")
        try:
            with stops.listening(), Display(console, left) as display:
                document = climb.climb(found, display)
        except KeyboardInterrupt:
            typer.echo(f"interrupted; what was trained is kept; go on with\n  {again}", err=True)
            raise typer.Exit(stops.exit_code()) from None
        typer.echo(json.dumps(document, indent=1) if as_json else "")
        if not as_json:
            console.print(report.table(document))
