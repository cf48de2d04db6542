"""`metatune what-if`: what a change of the tuned schedules would do, predicted and checked."""

from typing import Annotated, Final

import typer

from metatune.cli.root import RunFolderArgument, plain_errors, typed
from metatune.runs import stops

PAIRS: Final = 8


def what_if(
    run: RunFolderArgument,
    change: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CHANGE]...",
            help="Such as mixture.code[2]=0.6, mixture.code+=0.05 or "
            "learning_rates.lm_head*=0.5; several are made at once. Without any, a table of what "
            "the run is sensitive to.",
        ),
    ] = None,
    *,
    seeds: Annotated[
        int, typer.Option(min=2, metavar="SEEDS", help="Hypergradients that a slope is of.")
    ] = 6,
    train: Annotated[
        bool, typer.Option("--train", help="Check the prediction by trainings on fresh seeds.")
    ] = False,
    pairs: Annotated[
        int | None,
        typer.Option(min=2, metavar="PAIRS", help=f"Pairs of such trainings, {PAIRS} by default."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Predict what a change of the tuned schedules would do to the objective, with an interval.

    From hypergradients of the run at what it chose, and a few trainings on either side. Windows are
    counted from 1; the domains that aren't named share what is left as they do. What is computed is
    kept in the run, so that a further question costs little; --train measures the change in pairs
    of trainings, and says whether the prediction held.
    """
    import json

    from rich.console import Console

    from metatune.fit.process.allocation import keep_memory
    from metatune.fit.process.compilation import keep_compiled
    from metatune.fit.run_folder import RunFolder, RunFolderError
    from metatune.fit.telling.progress import tokenizing
    from metatune.hypergrad import CheckpointError, EstimatorError, ReplayError
    from metatune.inner import InnerTraining, prepare_file
    from metatune.ladder.progress import Display
    from metatune.verdict.what_if import telling
    from metatune.verdict.what_if.asking import Answer, ask, work
    from metatune.verdict.what_if.changes import parsed
    from metatune.verdict.what_if.sensitivity import questions, rows, table

    console = Console(stderr=as_json)

    def training_of(folder: RunFolder) -> InnerTraining:
        with tokenizing(console) as listener:
            return prepare_file(folder.recipe, (), listener, folder.day())

    changes = change or []
    measured_by = PAIRS if pairs is None else pairs
    said = ["--train", "--pairs", str(measured_by)] if train else []
    again = typed("what-if", run, *changes, "--seeds", seeds, *said)
    with plain_errors(RunFolderError, CheckpointError, EstimatorError, ReplayError):
        if train and not changes:
            typer.echo("error: --train without a change: nothing is there to be checked", err=True)
            raise typer.Exit(2)
        if pairs is not None and not train:
            typer.echo("error: --pairs without --train: nothing is measured", err=True)
            raise typer.Exit(2)
        read = parsed(changes)
        keep_compiled()
        keep_memory()
        asking = ask(run, training_of, seeds)
        delta = asking.moved(asking.point(read))
        wanted = [] if changes else rows(asking)
        total = work(asking, 1 if changes else questions(wanted), 2 * measured_by if train else 0)
        stops.farewell(f"interrupted; what was computed is in {run}; go on with\n  {again}")
        try:
            with (
                stops.listening(),
                Display(console, total) as display,
                asking.opened(display) as opened,
            ):
                if not changes:
                    told = table(opened, wanted)
                    document = telling.table_document(asking, told)
                    lines = telling.row_lines(told, asking.unit)
                else:
                    what = ", ".join(changes)
                    predicted = opened.prediction(delta, what)
                    measured = opened.measurement(delta, what, measured_by) if train else None
                    answer = Answer(predicted, measured)
                    document = telling.document(asking, changes, answer)
                    lines = telling.answer_lines(changes, answer, asking.unit)
        except KeyboardInterrupt:
            typer.echo(f"interrupted; what was computed is kept; go on with\n  {again}", err=True)
            raise typer.Exit(stops.exit_code()) from None
        if as_json:
            typer.echo(json.dumps(document, indent=1))
            return
        for line in lines:
            typer.echo(line)
