"""`metatune train`: training for production."""

from pathlib import Path
from typing import Annotated

import typer

from metatune.cli.root import Overrides, RecipeArgument, plain_errors, typed
from metatune.runs import processes, stops


def train(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    *,
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    with_: Annotated[
        Path | None,
        typer.Option(
            "--with", metavar="RUN", help="Train at the schedules of this run, or artefact."
        ),
    ] = None,
    rule: Annotated[
        str | None,
        typer.Option(
            help="How the schedules of --with follow the sizes of this training: none, mup, "
            "completep, complete_d_p (where something differs)."
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Updates; the recipe's by default. Schedules stretch.")
    ] = None,
    warmup: Annotated[
        str, typer.Option(help="Keep the tuned warmup in 'steps', or its 'fraction' of training.")
    ] = "fraction",
    seed: Annotated[int | None, typer.Option(help="In place of the recipe's seed.")] = None,
    test_seed: Annotated[
        int,
        typer.Option(
            min=0, help="Of its trainings by this seed, which: the one of a run's held_out_seeds."
        ),
    ] = 0,
    report_seed: Annotated[int | None, typer.Option(hidden=True)] = None,
    checkpoint_every: Annotated[int, typer.Option(help="Steps between checkpoints.")] = 500,
    evaluate_every: Annotated[int, typer.Option(help="Steps between evaluations.")] = 500,
    keep: Annotated[int, typer.Option(help="Checkpoints that stay.")] = 2,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with that in --out.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete the training in --out first.")
    ] = False,
) -> None:
    """Train a recipe's model, at tuned schedules or at its own; leaves a Hugging Face checkpoint.

    Ctrl-C, SIGTERM and SIGHUP end it with a checkpoint for --resume, a second one at once.
    """
    typer.echo("loading JAX and the data ...")
    from rich.console import Console

    from metatune.fit.process.agreement import refuse_different
    from metatune.fit.process.allocation import keep_memory
    from metatune.fit.process.compilation import keep_compiled
    from metatune.fit.run_folder import RunFolderError
    from metatune.fit.telling.progress import tokenizing
    from metatune.fit.trainers.failure import NotFinite
    from metatune.inner import prepare_file
    from metatune.plan import mesh
    from metatune.recipe import shipped
    from metatune.recipe.file_errors import refuse_unmakeable
    from metatune.train import command, folder, loop
    from metatune.transfer.telling import carried

    if report_seed is not None:
        typer.echo(f"error: --report-seed is --test-seed now: --test-seed {report_seed}", err=True)
        raise typer.Exit(2)
    if rule is not None and with_ is None:
        typer.echo(f"error: --rule {rule} needs --with RUN, whose schedules it carries", err=True)
        raise typer.Exit(2)
    given = {
        "--out": (out, None),
        "--with": (with_, None),
        "--rule": (rule, None),
        "--steps": (steps, None),
        "--warmup": (warmup, "fraction"),
        "--seed": (seed, None),
        "--test-seed": (test_seed, 0),
        "--checkpoint-every": (checkpoint_every, loop.DEFAULT.checkpoint_every),
        "--evaluate-every": (evaluate_every, loop.DEFAULT.evaluate_every),
        "--keep": (keep, 2),
    }
    said = [(name, value) for name, (value, usual) in given.items() if value != usual]
    again = typed("train", recipe, *(overrides or ()), *sum(said, ()), "--resume")
    stops.farewell(f"interrupted; what was reached is in {out}; go on with\n  {again}")
    with (
        plain_errors(NotFinite, RunFolderError, processes.ProcessesError),
        processes.joined(),
    ):
        console = Console()  # of the first process alone
        if not resume:  # what is finished may lie where nothing can be written
            refuse_unmakeable(out)
        keep_compiled()
        keep_memory()
        place = folder.usable(out, resume=resume, overwrite=overwrite)
        tuned = None if with_ is None else command.load(with_)
        changes = [*(overrides or ()), *([] if seed is None else [f"seed={seed}"])]
        with tokenizing(console) as listener:
            day = place.day() if resume else None
            training = prepare_file(shipped.find(recipe), changes, listener, day)
        refuse_different(
            training,
            out=out.name,
            schedules=tuned and tuned.sha256,
            rule=rule,
            steps=steps,
            warmup=warmup,
            test_seed=test_seed,
            checkpoint_every=checkpoint_every,
            evaluate_every=evaluate_every,
            keep=keep,
            resume=resume,
            overwrite=overwrite,
        )
        held = place.devices() if resume else None
        training, why = mesh.settled(training, folder=place.path, before=held)
        if why:
            console.print(why, highlight=False, soft_wrap=True)
        if tuned is not None:
            fitting = carried(tuned.schedules, training, recipe, rule, steps, console)
            tuned = tuned._replace(schedules=fitting)
        outcome = command.train(
            training,
            place,
            tuned,
            source=recipe,
            steps=steps,
            warmup=warmup,
            test_seed=test_seed,
            intervals=loop.Intervals(checkpoint_every, evaluate_every),
            keep=keep,
            resume=resume,
            overwrite=overwrite,
            console=console,
        )
        if outcome.result is None:
            typer.echo(
                f"interrupted after {outcome.steps} steps, which are kept; go on with\n  {again}"
            )
            raise typer.Exit(stops.exit_code())
        typer.echo(
            f"held-out {outcome.result['held_out']:.4f} {outcome.result['unit']} after "
            f"{outcome.steps} steps in {outcome.result['seconds']:.0f} s\n"
            f"  model: {place.model}\n  result: {place.result}"
        )
