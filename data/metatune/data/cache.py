"""A folder of finished results by key: written aside, then renamed, so that none is half there.

A lock lets one process write while others wait for it. The system frees it when its holder dies,
and the next one deletes what was left behind.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from filelock import FileLock

VARIABLE: Final = "METATUNE_CACHE"
INDEX: Final = "index.json"


class CacheError(OSError):
    """The cache can't be written."""


def unwritable(home: Path, error: OSError) -> CacheError:
    """What is said of a cache folder that can't be written."""
    there = next(place for place in (home, *home.absolute().parents) if place.exists())
    free = shutil.disk_usage(there).free
    return CacheError(
        f"the cache {home} can't be written: {error.strerror or error}, {free:,} bytes free there; "
        f"set {VARIABLE} to a folder with room"
    )


def cache_folder() -> Path:
    """Where results are kept: `$METATUNE_CACHE/data`, by default ~/.cache/metatune/data."""
    if chosen := os.environ.get(VARIABLE):
        return Path(chosen).expanduser() / "data"
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "metatune" / "data"


def key_of(what: Mapping[str, Any]) -> str:
    """The name of a result: a hash of all that it depends on, plain JSON values."""
    return sha256(json.dumps(what, sort_keys=True).encode("utf-8")).hexdigest()[:32]


def cached(
    what: Mapping[str, Any], write: Callable[[Path], Mapping[str, Any]]
) -> tuple[Path, dict[str, Any]]:
    """A result, written now if it isn't there.

    Args:
        what: all that it depends on, plain JSON values.
        write: fills an empty folder and returns what is to be known of it, plain JSON values.

    Returns:
        The folder, and what `write` returned.

    Raises:
        CacheError: no folder can be made there, or there is no room.
    """
    home = cache_folder()
    folder = home / key_of(what)
    try:
        if (index := _index(folder)) is not None:
            return folder, index
        home.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if (index := _index(folder)) is None:  # else another process has been faster
                index = _write(folder, what, write)
    except OSError as error:
        raise unwritable(home, error) from error
    return folder, index


def _write(
    folder: Path, what: Mapping[str, Any], write: Callable[[Path], Mapping[str, Any]]
) -> dict[str, Any]:
    aside = folder.with_suffix(".unfinished")
    for leftover in (aside, folder):
        if leftover.exists():
            shutil.rmtree(leftover)
    aside.mkdir()
    try:
        known = dict(write(aside))
        sizes = {path.name: path.stat().st_size for path in aside.iterdir()}
        text = json.dumps({"what": what, "known": known, "sizes": sizes}, indent=1)
        (aside / INDEX).write_text(text, encoding="utf-8")
        for path in aside.iterdir():
            _reach_disk(path)
        aside.rename(folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return known


def _reach_disk(path: Path) -> None:
    """Waits until a file would survive a loss of power, before a name says that it is whole."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _index(folder: Path) -> dict[str, Any] | None:
    """What is known of a result, None where it isn't there, or its files aren't as written."""
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        sizes = {name: (folder / name).stat().st_size for name in index["sizes"]}
        return index["known"] if sizes == index["sizes"] else None
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError):
        return None
