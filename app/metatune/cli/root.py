"""What all commands share: arguments, and errors without tracebacks."""

import importlib.metadata
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from metatune.runs import stops

DISK_FULL = 1
"""Exit code where there is no room: nothing is wrong with what was asked."""

RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A recipe's file, or the name of a shipped one.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY.PATH=VALUE]...", help="Changes to the recipe."),
]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, or an artefact.")]


@contextmanager
def plain_errors(*further: type[Exception]) -> Iterator[None]:
    """Prints a user's error without a traceback and exits with code 2.

    After a signal with 128 and its number, as shells have it; with 1 where the disk is full.

    Args:
        further: kinds of errors to expect besides those of recipes, artefacts and files.
    """
    from metatune.artefact import ArtefactError
    from metatune.recipe.faults import RecipeError
    from metatune.runs.space import DiskFull, is_full, shortage

    try:
        yield
    except DiskFull as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(DISK_FULL) from None
    except (ArtefactError, RecipeError, OSError, *further) as error:
        if is_full(error):
            named = getattr(error, "filename", None)
            typer.echo(f"error: {shortage(Path(named or '.'))}", err=True)
            raise typer.Exit(DISK_FULL) from None
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        raise typer.Exit(stops.exit_code()) from None


def typed(*words: object) -> str:
    """A command to type: what a shell takes for something else is quoted."""
    return shlex.join(map(str, ("metatune", *words)))


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"metatune {importlib.metadata.version('metatune')}")
        raise typer.Exit


def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """The command line itself."""
    del version
