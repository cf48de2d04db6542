"""`metatune plan`: what a recipe will take."""

from pathlib import Path
from typing import Annotated

import typer

from metatune.cli.root import Overrides, RecipeArgument, plain_errors


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
    from metatune.fit.process.allocation import keep_memory
    from metatune.fit.process.compilation import keep_compiled
    from metatune.hypergrad import EstimatorError
    from metatune.inner import prepare_file
    from metatune.plan import table
    from metatune.plan.progress import shown
    from metatune.recipe import shipped

    with plain_errors(EstimatorError, plans.NotPredicted):
        keep_compiled()
        keep_memory()
        training = prepare_file(shipped.find(recipe), overrides or ())
        with shown(Console(stderr=True)) as listener:
            made = plans.by_phase(training, folder=out, listener=listener)
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
