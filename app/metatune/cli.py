"""The command line. Thin: what takes long to import is imported inside the commands."""

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Tune learning rates and data mixtures by differentiating through the training.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""

RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A recipe's file, or the name of a shipped one.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY.PATH=VALUE]...", help="Changes to the recipe."),
]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, or an artefact.")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line on `arguments`, those of the process by default."""
    app(arguments)


@contextmanager
def plain_errors(*further: type[Exception]) -> Iterator[None]:
    """Prints a user's error without a traceback and exits with code 2; after Ctrl-C with 130.

    Args:
        further: kinds of errors to expect besides those of recipes, artefacts and files.
    """
    from metatune.artefact import ArtefactError
    from metatune.recipe.faults import RecipeError

    try:
        yield
    except (ArtefactError, RecipeError, OSError, *further) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        raise typer.Exit(INTERRUPTED) from None


@app.command()
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
    stops = (NotFinite, RunFolderError, CheckpointError, EstimatorError, ReplayError, CommandFailed)
    with plain_errors(*stops):
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
            changes = "".join(f" {shlex.quote(change)}" for change in overrides or ())
            typer.echo(
                f"interrupted; the best so far is in {outcome.folder.artefact}; go on with\n"
                f"  metatune fit {recipe}{changes} --out {out} --resume"
            )
            raise typer.Exit(INTERRUPTED)
        console.print(terminal.summary(outcome.artefact, outcome.folder.read_metrics()))
        typer.echo(
            f"run: {out}\n  metatune show {out}\n  tensorboard --logdir {out}\n"
            f"  metatune export {out} --to hf-trainer --out tuned/"
        )


@app.command()
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
    steps: Annotated[
        int | None, typer.Option(help="Updates; the recipe's by default. Schedules stretch.")
    ] = None,
    warmup: Annotated[
        str, typer.Option(help="Keep the tuned warmup in 'steps', or its 'fraction' of training.")
    ] = "fraction",
    seed: Annotated[int | None, typer.Option(help="In place of the recipe's seed.")] = None,
    report_seed: Annotated[
        int,
        typer.Option(
            min=0, help="Of its trainings by this seed, which: the one of a run's held_out_seeds."
        ),
    ] = 0,
    checkpoint_every: Annotated[int, typer.Option(help="Steps between checkpoints.")] = 500,
    evaluate_every: Annotated[int, typer.Option(help="Steps between evaluations.")] = 500,
    keep: Annotated[int, typer.Option(help="Checkpoints that stay.")] = 2,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with that in --out.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete the training in --out first.")
    ] = False,
) -> None:
    """Train a recipe's model, at tuned schedules or at its own; leaves a Hugging Face checkpoint.

    Ctrl-C ends it with a checkpoint for --resume, a second Ctrl-C at once.
    """
    typer.echo("loading JAX and the data ...")
    from rich.console import Console

    from metatune.fit.allocation import keep_memory
    from metatune.fit.compilation import keep_compiled
    from metatune.fit.failure import NotFinite
    from metatune.fit.progress import tokenizing
    from metatune.fit.run_folder import RunFolderError
    from metatune.inner import prepare_file
    from metatune.recipe import shipped
    from metatune.train import command, folder, loop

    console = Console()
    with plain_errors(NotFinite, RunFolderError):
        keep_compiled()
        keep_memory()
        place = folder.usable(out, resume=resume, overwrite=overwrite)
        tuned = None if with_ is None else command.load(with_)
        changes = [*(overrides or ()), *([] if seed is None else [f"seed={seed}"])]
        with tokenizing(console) as listener:
            training = prepare_file(shipped.find(recipe), changes, listener)
        outcome = command.train(
            training,
            place,
            tuned,
            source=recipe,
            steps=steps,
            warmup=warmup,
            report_seed=report_seed,
            intervals=loop.Intervals(checkpoint_every, evaluate_every),
            keep=keep,
            resume=resume,
            console=console,
        )
        if outcome.result is None:
            typer.echo(
                f"interrupted after {outcome.steps} steps; go on with the same command and --resume"
            )
            raise typer.Exit(INTERRUPTED)
        typer.echo(
            f"held-out {outcome.result['held_out']:.4f} {outcome.result['unit']} after "
            f"{outcome.steps} steps in {outcome.result['seconds']:.0f} s\n"
            f"  model: {place.model}\n  result: {place.result}"
        )


@app.command()
def plan(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    *,
    out: Annotated[
        Path, typer.Option(help="The run folder to be, for what is kept on disk.")
    ] = Path("."),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tell what a recipe will cost, and which estimator to take, before it is run."""
    import json

    from rich.console import Console

    from metatune import plan as plans
    from metatune.fit.allocation import keep_memory
    from metatune.fit.compilation import keep_compiled
    from metatune.hypergrad import EstimatorError
    from metatune.inner import prepare_file
    from metatune.plan import table
    from metatune.recipe import shipped

    with plain_errors(EstimatorError, plans.NotForetold):
        keep_compiled()
        keep_memory()
        if not as_json:
            typer.echo("compiling each estimator, and measuring a few steps ...")
        made = plans.by_phase(prepare_file(shipped.find(recipe), overrides or ()), folder=out)
        if as_json:
            each = [table.as_json(phase) for phase in made]
            typer.echo(json.dumps(each[0] if len(each) == 1 else {"phases": each}, indent=1))
        else:
            for number, phase in enumerate(made, start=1):
                if len(made) > 1:
                    typer.echo(f"phase {number} of {len(made)}, as if it were the whole search")
                Console().print(table.table(phase))
        if any(phase.pick is None for phase in made):
            raise typer.Exit(2)


@app.command()
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

    Takes 19 + 8 D trainings, about 2 K hypergradients (each as long as 4 trainings), and
    derivatives along D directions (2.5 D): by default as long as 90 trainings. A tuning that looks
    at a stretch of the training (outer.unroll) takes K hypergradients of the whole, too. Of several
    phases the first is checked.
    """
    import json
    import tempfile

    from rich.console import Console

    from metatune import artefact
    from metatune import check as checks
    from metatune import plan as plans
    from metatune.fit.allocation import keep_memory
    from metatune.fit.compilation import keep_compiled
    from metatune.fit.progress import tokenizing
    from metatune.hypergrad import CheckpointError, EstimatorError, ReplayError
    from metatune.inner import prepare_file
    from metatune.recipe import shipped
    from metatune.report import certificate as tables

    progress = Console(stderr=as_json)
    with plain_errors(CheckpointError, EstimatorError, ReplayError):
        if out is not None:
            artefact.refuse_artefact_folder(out)
        keep_compiled()
        keep_memory()
        with tokenizing(progress) as listener:
            training = prepare_file(shipped.find(recipe), overrides or (), listener)
        with tempfile.TemporaryDirectory() as scratch:
            training, reasons = plans.decided(training, folder=Path(scratch))
            for why in reasons:
                progress.print(f"estimator {why}", highlight=False, soft_wrap=True)
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


@app.command()
def replay(
    run: Run,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Train again from the artefact alone and compare; exits with 1 if the numbers disagree.

    On the type of machine that the run was made on every number must come back bit for bit,
    elsewhere within the spread over the seeds of the result.
    """
    import json

    from rich.console import Console

    from metatune.fit import replay as replays
    from metatune.fit.allocation import keep_memory
    from metatune.fit.compilation import keep_compiled
    from metatune.report import replay as report

    with plain_errors():
        keep_compiled()
        keep_memory()
        found = replays.replay(run, Console(stderr=as_json))
        document = found.as_json()
        typer.echo(json.dumps(document, indent=1) if as_json else "\n".join(report.lines(document)))
        if not found.agrees:
            raise typer.Exit(1)


@app.command()
def show(
    run: Run,
    *,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL_DIR|RECIPE",
            help="Compare parameters, tokenizer and domains instead; exits with 1 if they differ.",
        ),
    ] = None,
) -> None:
    """Show what was tuned, before and after, and the schedules as small plots."""
    from rich.console import Console

    from metatune import artefact
    from metatune.fit.run_folder import RunFolder
    from metatune.report import terminal

    with plain_errors():
        tuned = artefact.load(run)
        if against is not None:
            from metatune.artefact.comparison import differences
            from metatune.fit.counterpart import counterpart

            found = differences(tuned, counterpart(against))
            typer.echo("\n".join(found) or f"{against}: matches the artefact")
            raise typer.Exit(1 if found else 0)
        Console().print(terminal.summary(tuned, RunFolder(run).read_metrics()))


@app.command()
def export(
    run: Annotated[
        Path | None, typer.Argument(metavar="RUN", help="A run folder, or an artefact.")
    ] = None,
    *,
    to: Annotated[str | None, typer.Option(help="A target of --list.")] = None,
    out: Annotated[Path | None, typer.Option(help="The folder to write.")] = None,
    listed: Annotated[
        bool, typer.Option("--list", help="Print the targets and what each can express.")
    ] = False,
    lossy: Annotated[
        bool, typer.Option("--lossy", help="Drop what the target can't express.")
    ] = False,
    steps: Annotated[
        int | None, typer.Option(help="Updates of your training; the tuned ones by default.")
    ] = None,
    tokens_per_step: Annotated[
        int | None, typer.Option(help="Tokens of an update of your training.")
    ] = None,
    sequences_per_step: Annotated[
        int | None, typer.Option(help="Sequences of an update of your training.")
    ] = None,
    warmup: Annotated[
        str, typer.Option(help="Keep the warmup in 'steps', or its 'fraction' of training.")
    ] = "fraction",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --out.")] = False,
    against: Annotated[
        Path | None,
        typer.Option(metavar="MODEL_DIR", help="Refuse if this model has other parameters."),
    ] = None,
    widths: Annotated[
        str | None,
        typer.Option(help="Fit the rates to the widths of --against, by the rule 'mup'."),
    ] = None,
) -> None:
    """Write tuned schedules for another trainer; works there without metatune."""
    from metatune import artefact
    from metatune.artefact import exporters
    from metatune.artefact.widths import fitted_lines

    if listed:
        from metatune.report import export_table

        export_table.show()
        return
    if run is None or to is None or out is None:
        typer.echo("error: give RUN, --to and --out; targets: metatune export --list", err=True)
        raise typer.Exit(2)
    with plain_errors():
        tuned = artefact.load(run)
        if against is not None or widths is not None:
            from metatune.fit.widths import fitted

            tuned = fitted(tuned, against, widths)
        done = exporters.export(
            tuned,
            to,
            out,
            overwrite=overwrite,
            lossy=lossy,
            steps=steps,
            tokens_per_step=tokens_per_step,
            sequences_per_step=sequences_per_step,
            warmup=warmup,
        )
        for path in done.paths:
            typer.echo(str(path))
        for what in fitted_lines(tuned):
            typer.echo(f"note: {what}", err=True)
        for what in done.dropped:
            typer.echo(f"dropped: {what}", err=True)
        if done.warning:
            typer.echo(f"warning: {done.warning}", err=True)


@app.command("ls")
def list_recipes() -> None:
    """List the shipped recipes."""
    from metatune.recipe import shipped

    names = shipped.names()
    width = max(map(len, names))
    for name in names:
        typer.echo(f"{name:<{width}}  {shipped.headline(name)}")


@app.command("cp")
def copy_recipe(
    name: Annotated[str, typer.Argument(help="A shipped recipe.")],
    to: Annotated[Path, typer.Argument(help="The file to write.")],
) -> None:
    """Copy a shipped recipe, to change it."""
    from metatune.recipe import shipped

    with plain_errors():
        typer.echo(str(shipped.copy(name, to)))


@app.command()
def validate(recipe: RecipeArgument, overrides: Overrides = None) -> None:
    """Check a recipe, its data and its model, without computing anything."""
    from rich.console import Console

    from metatune.fit.progress import tokenizing
    from metatune.inner import prepare_file
    from metatune.recipe import shipped

    with plain_errors():
        path = shipped.find(recipe)
        with tokenizing(Console()) as listener:
            training = prepare_file(path, overrides or (), listener)
        held = training.corpus.statistics
        sizes = ", ".join(f"{name} {its.tokens:,}" for name, its in held.items())
        typer.echo(f"{path}: valid; tokens: {sizes}")


@app.command("bench")
def benchmark(
    size: Annotated[
        list[str] | None, typer.Option(help="A size of model, 0.5M to 500M; repeat for more.")
    ] = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            metavar="AXIS=VALUE,...",
            help="Values of layers, sequence, batch or steps; repeat for all combinations.",
        ),
    ] = None,
    variant: Annotated[
        list[str] | None,
        typer.Option(help="E.g. mixflow+remat+saved; repeat to compare with the first."),
    ] = None,
    time: Annotated[bool, typer.Option("--time", help="Run them too, for their time.")] = False,
    rounds: Annotated[int, typer.Option(min=1, help="Of --time; the least one counts.")] = 3,
    json: Annotated[Path | None, typer.Option(help="A file for all the numbers.")] = None,
    picture: Annotated[Path | None, typer.Option(help="An SVG file.")] = None,
) -> None:
    """Compare what a hypergradient costs, by how it is computed, in memory and time."""
    from rich.console import Console

    from metatune import bench
    from metatune.fit.allocation import keep_memory

    with plain_errors():
        keep_memory()
        bench.writable(json, picture)
        compared = bench.variants(variant or bench.DEFAULT)
        rows = []
        for case in bench.cases(size or ["5.3M"], vary or ()):
            rows += bench.run(case, compared, rounds=rounds * time, listener=typer.echo)
        Console().print(bench.tables(rows))
        bench.write(rows, json, picture)


def _version(wanted: bool) -> None:
    if wanted:
        import importlib.metadata

        typer.echo(f"metatune {importlib.metadata.version('metatune')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del version
