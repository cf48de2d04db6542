"""`metatune fit`: a search."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from metatune.cli.root import (
    Overrides,
    RecipeArgument,
    interruptible,
    plain_errors,
    typed,
)
from metatune.runs import processes, stops


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
    from metatune.fit.process.agreement import refuse_alone, refuse_different
    from metatune.fit.process.allocation import keep_memory, release_memory
    from metatune.fit.process.compilation import keep_compiled
    from metatune.fit.process.interruption import Whereabouts
    from metatune.fit.run_folder import RunFolderError, usable
    from metatune.fit.telling.expectation import Expectation, held_bytes
    from metatune.fit.telling.progress import tokenizing
    from metatune.fit.trainers.external import CommandFailed
    from metatune.fit.trainers.failure import NotFinite
    from metatune.hypergrad import CheckpointError, EstimatorError, ReplayError
    from metatune.inner import prepare_file
    from metatune.inner.estimators import checkpoints
    from metatune.plan import mesh
    from metatune.plan.progress import spoken
    from metatune.recipe import shipped
    from metatune.recipe.file_errors import refuse_unmakeable
    from metatune.recipe.phases import resolved
    from metatune.report import terminal

    ends = (NotFinite, RunFolderError, CheckpointError, EstimatorError, ReplayError, CommandFailed)
    run = Whereabouts(recipe, overrides or (), out, resume, overwrite)
    again = typed("fit", recipe, *(overrides or ()), "--out", out, "--resume")
    stops.farewell(f"interrupted; what was reached is in {out}; go on with\n  {again}")
    with (
        plain_errors(*ends, processes.ProcessesError),
        interruptible(run.told),
        processes.joined() as together,
    ):
        console = Console()  # of the first process alone
        if not resume:  # what is finished may lie where nothing can be written
            refuse_unmakeable(out)
        keep_compiled()
        keep_memory()
        folder = usable(out, resume=resume, overwrite=overwrite)
        with tokenizing(console) as listener:
            day = folder.day() if resume else None
            training = prepare_file(shipped.find(recipe), overrides or (), listener, day)
        refuse_different(training, out=out.name, resume=resume, overwrite=overwrite)
        refuse_alone(training)
        told = spoken(lambda text: console.print(text, highlight=False, soft_wrap=True))
        run.doing = "choosing the devices"
        held = folder.devices() if resume else None
        training, why = mesh.settled(training, folder=folder.scratch, before=held, listener=told)
        if why:
            console.print(why, highlight=False, soft_wrap=True)
        run.doing = "choosing the estimator"
        before = folder.outer() if resume else None
        training, reasons = plans.decided(
            training, folder=folder.scratch, before=before, listener=told
        )
        for why in reasons:
            typer.echo(f"estimator {why}")
        phases = [phase.estimator for phase in resolved(training.recipe.outer)]
        keep_memory(whole=all(checkpoints(each, out).store == "device" for each in phases))

        def predict(scratch: Path) -> Expectation | None:
            try:
                memory, pace = plans.expected(training, folder=scratch, listener=told)
            except plans.NotPredicted as error:
                console.print(str(error))
                return None
            release_memory()
            return Expectation(memory.device, pace.outer_step, pace.run, held_bytes())

        run.doing = "opening the run"
        outcome = outer_loop.fit(
            training,
            out,
            resume=resume,
            overwrite=overwrite,
            predict=predict if together.count == 1 else None,  # by the clock of each
            console=console,
        )
        run.doing = outcome.during
        if outcome.interrupted:
            raise KeyboardInterrupt
        run.doing = "showing the result"
        console.print(terminal.summary(outcome.artefact, outcome.folder.read_metrics()))
        watch = shlex.join(["tensorboard", "--logdir", str(out)])
        lines = [f"run: {out}", typed("show", out), typed("report", out), watch]
        if target := suited(outcome.artefact):
            lines.append(typed("export", out, "--to", target, "--out", "tuned/"))
        typer.echo("\n  ".join(lines))
