"""`metatune fit`: a search."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from metatune.cli.root import INTERRUPTED, Overrides, RecipeArgument, plain_errors


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
    """Tune a recipe; leaves artefact, metrics, checkpoints and TensorBoard events in --out."""
    typer.echo("loading JAX and the data ...")
    from rich.console import Console

    from metatune import plan as plans
    from metatune.artefact.exporters import suited
    from metatune.fit import outer_loop
    from metatune.fit.allocation import keep_memory, release_memory
    from metatune.fit.compilation import keep_compiled
    from metatune.fit.expectation import Expectation, held_bytes
    from metatune.fit.external import CommandFailed
    from metatune.fit.failure import NotFinite
    from metatune.fit.progress import tokenizing
    from metatune.fit.run_folder import RunFolderError, usable
    from metatune.hypergrad import CheckpointError, EstimatorError, ReplayError
    from metatune.inner import prepare_file
    from metatune.plan.progress import spoken
    from metatune.recipe import shipped
    from metatune.report import terminal

    console = Console()
    stops = (NotFinite, RunFolderError, CheckpointError, EstimatorError, ReplayError, CommandFailed)
    with plain_errors(*stops):
        keep_compiled()
        keep_memory()
        folder = usable(out, resume=resume, overwrite=overwrite)
        with tokenizing(console) as listener:
            training = prepare_file(shipped.find(recipe), overrides or (), listener)
        before = folder.outer() if resume else None
        told = spoken(lambda text: console.print(text, highlight=False, soft_wrap=True))
        training, reasons = plans.decided(
            training, folder=folder.scratch, before=before, listener=told
        )
        for why in reasons:
            typer.echo(f"estimator {why}")

        def foretell(scratch: Path) -> Expectation | None:
            try:
                memory, pace = plans.expected(training, folder=scratch, listener=told)
            except plans.NotForetold as error:
                console.print(str(error))
                return None
            release_memory()
            return Expectation(memory.device, pace.outer_step, pace.run, held_bytes())

        outcome = outer_loop.fit(
            training,
            out,
            resume=resume,
            overwrite=overwrite,
            foretell=foretell,
            console=console,
        )
        if outcome.interrupted:
            changes = "".join(f" {shlex.quote(change)}" for change in overrides or ())
            typer.echo(
                f"interrupted; the best so far is in {outcome.folder.artefact}; go on with\n"
                f"  metatune fit {recipe}{changes} --out {out} --resume"
            )
            raise typer.Exit(INTERRUPTED)
        console.print(terminal.summary(outcome.artefact, outcome.folder.read_metrics()))
        lines = [f"run: {out}", f"metatune show {out}", f"tensorboard --logdir {out}"]
        if target := suited(outcome.artefact):
            lines.append(f"metatune export {out} --to {target} --out tuned/")
        typer.echo("\n  ".join(lines))
