"""`metatune explain`: what a field of a recipe is."""

from typing import Annotated

import typer

from metatune.cli.root import plain_errors


def explain(
    field: Annotated[
        str | None,
        typer.Argument(
            metavar="[PATH]", help="A field or section, e.g. tune.mixture.floor; all by default."
        ),
    ] = None,
) -> None:
    """Tell what a field of a recipe means: type, default, what is allowed, an example."""
    from metatune.recipe import reference
    from metatune.report import field_reference

    with plain_errors():
        if field is None:
            typer.echo(field_reference.overview())
        else:
            typer.echo(field_reference.explained(reference.find(field)))
