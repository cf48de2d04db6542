"""`metatune ls`, `cp` and `validate`: recipes."""

from pathlib import Path
from typing import Annotated

import typer

from metatune.cli.root import Overrides, RecipeArgument, plain_errors, wrapped


def list_recipes() -> None:
    """List the shipped recipes."""
    from metatune.recipe import shipped

    names = shipped.names()
    width = max(map(len, names))
    for name in names:
        typer.echo(wrapped(f"{name:<{width}}  {shipped.headline(name)}", width + 2))


def copy_recipe(
    name: Annotated[str, typer.Argument(help="A shipped recipe.")],
    to: Annotated[Path, typer.Argument(help="The file to write.")],
) -> None:
    """Copy a shipped recipe, to change it."""
    from metatune.recipe import shipped

    with plain_errors():
        typer.echo(str(shipped.copy(name, to)))


def validate(recipe: RecipeArgument, overrides: Overrides = None) -> None:
    """Check a recipe, its data and its model, without computing anything."""
    from rich.console import Console

    from metatune.fit.telling.dataset_statistics import rendered
    from metatune.fit.telling.progress import tokenizing
    from metatune.inner import prepare_file
    from metatune.recipe import shipped
    from metatune.transfer.sized import sizes

    with plain_errors():
        path = shipped.find(recipe)
        with tokenizing(Console()) as listener:
            training = prepare_file(path, overrides or (), listener)
        several = sizes(training)
        for line in rendered(training):
            typer.echo(line)
        held = training.corpus.statistics
        tokens = ", ".join(f"{name} {its.tokens:,}" for name, its in held.items())
        typer.echo(wrapped(f"{path}: valid; tokens: {tokens}"))
        if len(several) > 1:
            counts = "; ".join(f"{each.name}: {each.parameters:,} parameters" for each in several)
            typer.echo(wrapped(f"tuned for transfer at {counts}"))
