"""The recipes that come with metatune."""

import difflib
import os
from pathlib import Path

from metatune.recipe.faults import ABSENT, Fault, RecipeError
from metatune.recipe.file_errors import refuse_unmakeable

HERE = Path(__file__).resolve()
FOLDERS = (HERE.parents[1] / "recipes", HERE.parents[3] / "recipes")
"""Where they are in an installed wheel, and in a source tree."""


def folder() -> Path:
    """The folder of the shipped recipes."""
    return next(path for path in FOLDERS if path.is_dir())


def names() -> list[str]:
    """Names of the shipped recipes: their files' names without `.yaml`."""
    return sorted(path.stem for path in folder().glob("*.yaml"))


def headline(name: str) -> str:
    """The first line of a shipped recipe's header."""
    return (folder() / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0].lstrip("# ")


def find(recipe: str) -> Path:
    """The file of a recipe.

    Args:
        recipe: a path, or the name of a shipped recipe.

    Raises:
        RecipeError: neither exists.
    """
    path = Path(recipe)
    if recipe in names() and not path.is_file():  # a run's folder may have the recipe's name
        return folder() / f"{recipe}.yaml"
    if path.exists():
        return path
    raise RecipeError(recipe, [_unknown(recipe)])


def copy(name: str, to: Path) -> Path:
    """Copies a shipped recipe.

    Args:
        name: which.
        to: the file to write, or a folder to put it in; an existing file is never replaced.

    Raises:
        RecipeError: there is no such recipe, or `to` exists.
    """
    if name not in names():
        raise RecipeError(name, [_unknown(name)])
    refuse_unmakeable(to)
    if to.is_dir():
        to = to / f"{name}.yaml"
    text = (folder() / f"{name}.yaml").read_bytes()
    to.parent.mkdir(parents=True, exist_ok=True)
    try:
        # Exclusive creation: never over a file that is there.
        descriptor = os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        fault = Fault("", ABSENT, f"{to} exists already", "give another file, or remove it")
        raise RecipeError(str(to), [fault]) from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(text)
    return to


def _unknown(name: str) -> Fault:
    near = difflib.get_close_matches(Path(name).stem, names(), n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return Fault(
        "",
        None,
        "no such file, and no shipped recipe of that name",
        f"{hint}shipped are {', '.join(names())}",
    )
