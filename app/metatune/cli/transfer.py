"""`metatune transfer`: whether a gain survives on larger trainings."""

from pathlib import Path
from typing import Annotated, Any

import typer

from metatune.cli.root import RunFolderArgument, plain_errors, typed
from metatune.runs import stops


def transfer(
    run: RunFolderArgument,
    further: Annotated[
        list[str] | None,
        typer.Argument(metavar="[AXIS=FACTORS | CONFIG]...", help="More of --ladder."),
    ] = None,
    *,
    ladder: Annotated[
        str,
        typer.Option(
            metavar="AXIS=FACTORS",
            help="Rungs above the proxy: width, depth, steps or all, in its sizes, or the file of "
            "a model's config; width=2,4 all=2 big/config.json, say.",
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
    baselines: Annotated[
        str,
        typer.Option(help="Where those at constant rates are trained, too: top (rung), or all."),
    ] = "top",
    retune: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RUNG",
            help="Search at this rung, too ('width x2', or all), to hold what is carried against.",
        ),
    ] = None,
    at: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL_DIR",
            help="Predict the gain at this model from the ledger, and train nothing.",
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Updates of --at's training.")] = None,
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
    if at is not None or steps is not None:
        _predict(run, at, steps, as_json)
        return
    import json

    from rich.console import Console

    from metatune.fit.process.allocation import keep_memory
    from metatune.fit.process.compilation import keep_compiled
    from metatune.fit.run_folder import RunFolder, RunFolderError
    from metatune.fit.telling.progress import tokenizing
    from metatune.fit.trainers.failure import NotFinite
    from metatune.hypergrad import CheckpointError, EstimatorError
    from metatune.inner import InnerTraining, prepare_file
    from metatune.ladder import climb, preparing, retuning, rungs
    from metatune.ladder.progress import Display
    from metatune.ladder.record import LadderRecord
    from metatune.plan.table import duration
    from metatune.report import transfer as report

    console = Console(stderr=as_json)

    def proxy(folder: RunFolder) -> InnerTraining:
        with tokenizing(console) as listener:
            return prepare_file(folder.recipe, (), listener, folder.day())

    words = [*ladder.split(), *(further or ())]
    given = {"--rule": rule, "--baselines": None if baselines == "top" else baselines}
    more = [word for name, value in given.items() if value for word in (name, value)]
    more += [word for name in retune or () for word in ("--retune", name)]
    again = typed("transfer", str(run), "--ladder", *words, "--seeds", str(seeds), *more)
    with plain_errors(RunFolderError, NotFinite, CheckpointError, EstimatorError):
        wanted = rungs.parse(words)
        keep_compiled()
        keep_memory()
        found = preparing.ladder(run, proxy, wanted, rule, seeds, preparing.baselines(baselines))
        searches = retuning.chosen(found, retune or ())
        record = LadderRecord(found.folder.path, found.identity)
        left = found.left(record)
        for line in report.plan(found, left):
            console.print(line, highlight=False, soft_wrap=True)
        if searches:
            names = ", ".join(step.rung.name for step in searches)
            took = duration(retuning.search_work(found, searches))
            said = f"searches at {names}: about {took}, by what the run's own took and compute"
            console.print(said, highlight=False, soft_wrap=True)
        if plan:
            took = duration(climb.seconds(found, record))
            console.print(f"expected: about {took} on this machine", highlight=False)
            return
        stops.farewell(f"interrupted; what was trained is in {run}; go on with\n  {again}")
        try:
            with stops.listening():
                found = retuning.searched(found, searches, console)
                with Display(console, found.left(record)) as display:
                    document = climb.climb(found, display)
        except KeyboardInterrupt:
            typer.echo(f"interrupted; what was trained is kept; go on with\n  {again}", err=True)
            raise typer.Exit(stops.exit_code()) from None
        typer.echo(json.dumps(document, indent=1) if as_json else "")
        if not as_json:
            console.print(report.table(document))


def _predict(run: Any, at: Path | None, steps: int | None, as_json: bool) -> None:
    """What is to be expected at a model that is named."""
    import json

    from metatune.fit.artefact_folder import complete
    from metatune.fit.run_folder import RunFolderError
    from metatune.ladder.naming import predicted_at
    from metatune.report import transfer as report

    if at is None or steps is None:
        typer.echo("error: --at MODEL_DIR and --steps N go together", err=True)
        raise typer.Exit(2)
    with plain_errors(RunFolderError):
        found = predicted_at(*complete(run), at, steps)
        (said,) = report.beyond({"farther": [found]})
        typer.echo(json.dumps(found, indent=1) if as_json else said)
