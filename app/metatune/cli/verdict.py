"""`metatune verdict`: whether what was tuned is worth it, against what a user would have done."""

from pathlib import Path
from typing import Annotated

import typer

from metatune.cli.root import RunFolderArgument, plain_errors, typed
from metatune.runs import stops


def verdict(
    run: RunFolderArgument,
    *,
    only: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Contestants, with commas between them: grid, random, tpe, random-all, tpe-all, "
            "halving, layer-wise, schedule-free, prodigy, online, regression, alignment; all by "
            "default.",
        ),
    ] = None,
    also: Annotated[
        list[Path] | None,
        typer.Option(metavar="RUN", help="Another run or artefact to measure, too; repeatable."),
    ] = None,
    budget: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="STEPS",
            help="Inner steps of each contestant's search; those that the run's own took by "
            "default, validation included.",
        ),
    ] = None,
    max_seeds: Annotated[
        int, typer.Option(min=5, metavar="SEEDS", help="Paired seeds at most.")
    ] = 40,
    resolution: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Half-width of an interval that is fine enough; a tenth of the run's gain, and "
            "0.002 at least, by default.",
        ),
    ] = None,
    parts: Annotated[
        bool,
        typer.Option(
            help="Where there is a gain, say what of the schedules it is of, and look for simple "
            "ones that keep it.",
        ),
    ] = True,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what it takes, and train nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say whether what was tuned is worth using, against what a user would have done.

    Grids, random search, TPE and others get the inner steps that the search took, and choose on the
    validation split; then they, the default and what was tuned are trained on the same fresh seeds
    and measured on the test split, until the differences are told. Writes verdict.json into the
    artefact, and artefact-simple beside it where simple schedules keep the gain; goes on where it
    was stopped or killed. Exits with 0 whatever it comes to.
    """
    import json

    from rich.console import Console

    from metatune.fit.process.allocation import keep_memory
    from metatune.fit.process.compilation import keep_compiled
    from metatune.fit.run_folder import RunFolder, RunFolderError
    from metatune.fit.telling.progress import tokenizing
    from metatune.inner import InnerTraining, prepare_file
    from metatune.ladder.progress import Display
    from metatune.plan.table import duration
    from metatune.report import verdict as report
    from metatune.verdict import contest

    console = Console(stderr=as_json)

    def training_of(folder: RunFolder) -> InnerTraining:
        with tokenizing(console) as listener:
            return prepare_file(folder.recipe, (), listener, folder.day())

    options = {"--only": only, "--budget": budget, "--resolution": resolution}
    said = [word for name, value in options.items() if value is not None for word in (name, value)]
    said += [word for each in also or () for word in ("--also", each)]
    said += () if parts else ("--no-parts",)
    again = typed("verdict", run, "--max-seeds", max_seeds, *said)
    with plain_errors(RunFolderError):
        keep_compiled()
        keep_memory()
        found = contest.prepare(
            run,
            training_of,
            only=None if only is None else [name.strip() for name in only.split(",")],
            budget=budget,
            most=max_seeds,
            resolution=resolution,
            also=also or (),
            parts=parts,
        )
        for line in report.plan(found):
            console.print(line, highlight=False, soft_wrap=True)
        if plan:
            took = duration(contest.seconds(found))
            console.print(f"expected: about {took} on this machine", highlight=False)
            return
        stops.farewell(f"interrupted; what was trained is in {run}; go on with\n  {again}")
        try:
            with stops.listening(), Display(console, found.work) as display:
                document, record = contest.hold(found, display)
        except KeyboardInterrupt:
            typer.echo(f"interrupted; what was trained is kept; go on with\n  {again}", err=True)
            raise typer.Exit(stops.exit_code()) from None
        if as_json:
            typer.echo(json.dumps(document, indent=1))
            return
        seconds = {each.name: record.seconds("search", each.name) for each in found.contestants}
        console.print(report.table(document, {"tuned": found.spent.seconds, **seconds}))
