"""`metatune check`: whether a recipe's hypergradients can be trusted."""

from pathlib import Path
from typing import Annotated, Any

import typer

from metatune.cli.root import Overrides, RecipeArgument, plain_errors
from metatune.runs import stops


def check(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    *,
    steps: Annotated[
        int | None,
        typer.Option(help="Check a training of so many steps, schedules stretched with it."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=2, help="Hypergradients, K.")] = 4,
    directions: Annotated[
        int, typer.Option(min=1, help="Random directions, and as many coordinates, D.")
    ] = 4,
    smoother: Annotated[
        bool,
        typer.Option(
            "--smoother",
            help="Try what makes the training smoother, and what that costs in loss, instead.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="A file to write, or a folder for certificate.json.")
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(help="A run of this recipe, for certificate.json beside its result."),
    ] = None,
) -> None:
    """Certify a recipe's hypergradients: green or amber, or red, with the cause and exit code 1.

    Takes 3 + 10 D trainings, more where slopes are rough, 1.75 K hypergradients (each as long as 4
    trainings), and derivatives along D directions (2.5 D): by default as long as 81 trainings. A
    tuning that looks at a stretch of the training (outer.unroll) takes K hypergradients of the
    whole instead of 0.75 K. Of several phases the first is checked. What a shortened check
    (--steps) can't say is printed first. What noise hides is amber, and said to be not resolved.
    """
    import json
    import shutil
    import tempfile
    from functools import partial

    from rich.console import Console

    from metatune import artefact
    from metatune import check as checks
    from metatune import plan as plans
    from metatune.fit.process.allocation import keep_memory
    from metatune.fit.process.compilation import keep_compiled
    from metatune.fit.telling.progress import tokenizing
    from metatune.hypergrad import CheckpointError, EstimatorError, ReplayError
    from metatune.inner import prepare_file
    from metatune.plan import mesh
    from metatune.recipe import shipped
    from metatune.recipe.file_errors import refuse_unmakeable
    from metatune.report import certificate as tables

    if smoother and (said := [n for n, v in _whole(steps, out, run).items() if v is not None]):
        typer.echo(f"error: --smoother with {said[0]}: it makes no certificate", err=True)
        raise typer.Exit(2)
    progress = Console(stderr=as_json)
    with plain_errors(CheckpointError, EstimatorError, ReplayError):
        if out is not None:
            refuse_unmakeable(out)
            artefact.refuse_artefact_folder(out)
        keep_compiled()
        keep_memory()
        with tokenizing(progress) as listener:
            training = prepare_file(shipped.find(recipe), overrides or (), listener)
        with (
            tempfile.TemporaryDirectory() as scratch,
            stops.before_the_end(partial(shutil.rmtree, scratch)),
        ):
            training, chosen = mesh.settled(training, folder=Path(scratch))
            training, reasons = plans.decided(training, folder=Path(scratch))
            for why in (*([chosen] if chosen else ()), *(f"estimator {why}" for why in reasons)):
                progress.print(why, highlight=False, soft_wrap=True)
            if smoother:
                _smoother(training, checks.Settings(seeds, directions), scratch, progress, as_json)
                return
            if run is not None:
                checks.refuse_other_run(training.recipe, artefact.load(run))
            document = checks.check(
                training,
                checks.Settings(seeds, directions),
                steps=steps,
                scratch=Path(scratch),
                console=progress,
            )
        if as_json:
            typer.echo(json.dumps(document, indent=1))
        else:
            Console().print(tables.table(document))
        if out is not None:
            file = out / artefact.CERTIFICATE if out.is_dir() else out
            artefact.replace_file(file, artefact.rendered_certificate(document))
        if run is not None:
            checks.write_into_run(run, document)
        if document["verdict"] == "red":
            raise typer.Exit(1)


def _whole(steps: int | None, out: Path | None, run: Path | None) -> dict[str, object]:
    """The options that are of a certificate alone."""
    return {"--steps": steps, "--out": out, "--run": run}


def _smoother(training: Any, settings: Any, scratch: str, console: Any, as_json: bool) -> None:
    import json

    from rich.console import Console

    from metatune.check import smoother
    from metatune.inner import prepare
    from metatune.report import smoother as tables

    found = smoother.tried(
        training.recipe, prepare, settings, scratch=Path(scratch), console=console
    )
    document = smoother.as_json(found)
    if as_json:
        typer.echo(json.dumps(document, indent=1))
    else:
        Console().print(tables.table(document))
