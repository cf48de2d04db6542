"""What all commands share: arguments, and errors without tracebacks."""

import gc
import importlib.metadata
import shlex
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, TextIO

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
RunFolderArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]


@contextmanager
def plain_errors(*further: type[Exception]) -> Iterator[None]:
    """Prints a user's error without a traceback and exits with code 2; with 1 for a full disk.

    Args:
        further: kinds of errors to expect besides those of recipes, artefacts and files.
    """
    from metatune.runs.space import FULL, GO_ON, DiskFull, is_full, shortage

    begun()
    try:
        yield
    except DiskFull as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(DISK_FULL) from None
    except Exception as error:
        full = is_full(error)
        if isinstance(error, OSError) and error.errno in FULL:
            named = isinstance(error.filename, str)
            typer.echo(f"error: {shortage(Path(error.filename) if named else None)}", err=True)
            raise typer.Exit(DISK_FULL) from None
        said = _said(error, further)
        if said is None:
            raise
        if full:  # of a cache, or where states of the inner training wait
            said += f"; {GO_ON}"
        typer.echo(wrapped(f"error: {said}", stream=sys.stderr), err=True)
        raise typer.Exit(DISK_FULL if full else 2) from None


def begun() -> None:
    """Has Python look for circles again: what there is by now was imported, and is none."""
    if not gc.isenabled():  # by `main`; elsewhere this is the business of whoever calls a command
        gc.freeze()
        gc.enable()


def wrapped(text: str, indent: int = 2, stream: TextIO | None = None) -> str:
    """Text whose lines end between words where a terminal shows it; elsewhere as it is.

    Args:
        text: one or more lines.
        indent: columns before what doesn't fit on a line, besides the line's own.
        stream: where it is shown; standard output by default.
    """
    if not (stream or sys.stdout).isatty():
        return text
    columns = shutil.get_terminal_size().columns
    lines = []
    for line in text.splitlines():
        own = len(line) - len(line.lstrip())
        lines += textwrap.wrap(
            line,
            columns,
            subsequent_indent=" " * (own + indent),
            drop_whitespace=True,
            break_long_words=False,
            break_on_hyphens=False,
        ) or [""]
    return "\n".join(lines)


def _said(error: Exception, further: tuple[type[Exception], ...]) -> str | None:
    """A user's error in words; None for what is no user's."""
    # Here, because they take long to import, and commands that only read have no use for them.
    from metatune.artefact import ArtefactError
    from metatune.recipe.faults import RecipeError
    from metatune.recipe.file_errors import sentence

    if isinstance(error, (ArtefactError, RecipeError, *further)):
        return str(error)
    if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
        return sentence(error)
    return None


@contextmanager
def interruptible(told: Callable[[], str]) -> Iterator[None]:
    """Prints what `told` says of an interruption after a signal within, and exits with its code."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(told(), err=True)
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
