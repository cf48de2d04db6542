"""Puts a folder or a file in place, or leaves what was there: nothing is ever half-written."""

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from metatune.artefact.errors import ArtefactError
from metatune.recipe.faults import Fault


def replace_folder(
    folder: Path, files: Mapping[str, bytes | str], replaceable: Callable[[str], bool]
) -> list[Path]:
    """Writes `files` beside `folder`, then renames: `folder` then holds these files and no others.

    If writing fails, what was in `folder` is still there, untouched. A process that is killed
    between the two renames leaves the old folder beside, as `.NAME.old`; the next call puts it
    back before it begins.

    Args:
        folder: to make or to replace; its parents are made.
        files: contents by file name; text is written as UTF-8.
        replaceable: whether an existing folder may hold a name; any other is somebody's own file.

    Returns:
        The paths of the files.

    Raises:
        ArtefactError: `folder` is a file, or holds something that isn't replaceable.
    """
    folder = folder.resolve()
    new, old = (folder.with_name(f".{folder.name}.{which}") for which in ("new", "old"))
    if old.exists() and not folder.exists():
        os.rename(old, folder)
    _check_replaceable(folder, replaceable)
    for leftover in (new, old):
        if leftover.exists():
            shutil.rmtree(leftover)
    try:
        new.mkdir(parents=True)
        for name, content in files.items():
            _write_through(new / name, content)
        if folder.exists():
            os.rename(folder, old)
        os.rename(new, folder)
    except BaseException:
        if old.exists() and not folder.exists():
            os.rename(old, folder)
        shutil.rmtree(new, ignore_errors=True)
        raise
    if old.exists():
        shutil.rmtree(old)
    return [folder / name for name in files]


def replace_file(path: Path, text: str) -> None:
    """Writes a file beside its place, then renames it; its parents are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")
    _write_through(beside, text)
    os.replace(beside, path)


def _check_replaceable(folder: Path, replaceable: Callable[[str], bool]) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        problem = "must be a folder, new or to be replaced"
        raise ArtefactError("writing", [Fault("folder", str(folder), problem, "name another")])
    own = sorted(entry.name for entry in folder.iterdir() if not replaceable(entry.name))
    if own:
        problem = f"holds what metatune did not write there: {', '.join(own)}"
        cure = "move that away, or name another folder"
        raise ArtefactError("writing", [Fault("folder", str(folder), problem, cure)])


def _write_through(path: Path, content: bytes | str) -> None:
    """Writes a file down to the disk, so that no rename can come before its content."""
    with open(path, "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
