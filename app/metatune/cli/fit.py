"""`metatune fit`: a search."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from metatune.cli.root import Overrides, RecipeArgument, plain_errors, typed
from metatune.runs import stops


def fit(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    *,
    out: Annotated[Path, typer.Option(help="The run folder to write.")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete the run in --out first.")
    ] = False,
) -> None:
    """Tune a recipe; leaves artefact, metrics, checkpoints and TensorBoard events in --out.

    Ctrl-C, SIGTERM and SIGHUP end it with all that --resume needs, a second one at once.
    """
    typer.echo("loading JAX and the data ...")
    from rich.console import Console

    from metatune import plan as plans
    from metatune.artefact.exporters import suited
    from metatune.fit import outer_loop
    from metatune.fit.allocation import keep_memory
    from metatune.fit.compilation import keep_compiled
    from metatune.fit.expectation import Expectation
    from metatune.fit.external import CommandFailed
    from metatune.fit.failure import NotFinite
    from metatune.fit.progress import tokenizing
    from metatune.fit.run_folder import RunFolderError, usable
    from metatune.hypergrad import CheckpointError, EstimatorError, ReplayError
    from metatune.inner import prepare_file
    from metatune.recipe import shipped
    from metatune.report import terminal

    console = Console()
    again = typed("fit", recipe, *(overrides or ()), "--out", out, "--resume")
    stops.farewell(f"interrupted; what was reached is in {out}; go on with\n  {again}")
    ends = (NotFinite, RunFolderError, CheckpointError, EstimatorError, ReplayError, CommandFailed)
    with plain_errors(*ends):
        keep_compiled()
        keep_memory()
        folder = usable(out, resume=resume, overwrite=overwrite)
        with tokenizing(console) as listener:
            training = prepare_file(shipped.find(recipe), overrides or (), listener)
        before = folder.outer() if resume else None
        training, reasons = plans.decided(training, folder=folder.scratch, before=before)
        for why in reasons:
            typer.echo(f"estimator {why}")

        def foretell(scratch: Path) -> Expectation | None:
            try:
                memory, pace = plans.expected(training, folder=scratch)
            except plans.NotForetold as error:
                console.print(str(error))
                return None
            return Expectation(memory.device, pace.outer_step, pace.run)

        outcome = outer_loop.fit(
            training,
            out,
            resume=resume,
            overwrite=overwrite,
            foretell=foretell,
            console=console,
        )
        if outcome.interrupted:
            typer.echo(
                f"interrupted; the best so far is in {outcome.folder.artefact}; go on with\n"
                f"  {again}"
            )
            raise typer.Exit(stops.exit_code())
        console.print(terminal.summary(outcome.artefact, outcome.folder.read_metrics()))
        watch = shlex.join(["tensorboard", "--logdir", str(out)])
        lines = [f"run: {out}", typed("show", out), watch]
        if target := suited(outcome.artefact):
            lines.append(typed("export", out, "--to", target, "--out", "tuned/"))
        typer.echo("\n  ".join(lines))
