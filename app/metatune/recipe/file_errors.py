"""What the operating system says of a file, as a sentence: which, what is wrong, what to do."""

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from metatune.recipe.shortening import shortened

LONGEST_PATH: Final = 160

SAID: Final[Mapping[int, tuple[str, str]]] = {
    errno.ENOENT: ("isn't there", "check its spelling, and that it can be made there"),
    errno.EEXIST: ("is there already", "give another path, or remove it"),
    errno.EISDIR: ("is a folder, where a file is needed", "name a file"),
    errno.ENOTEMPTY: ("is a folder that isn't empty", "give another, or empty it"),
    errno.EACCES: (
        "this user may not read or write there",
        "change the permissions, or give another path",
    ),
    errno.EPERM: ("the system doesn't allow it there", "give another path"),
    errno.EROFS: ("is on a disk that can only be read", "give a path on another"),
    errno.ENOSPC: ("its disk is full", "make room, or give a path on another disk"),
    errno.EDQUOT: ("this user's share of its disk is full", "make room, or give another path"),
    errno.EFBIG: ("its disk takes no file of that size", "give a path on another disk"),
    errno.ENAMETOOLONG: ("has a name that is too long for its disk", "give a shorter one"),
    errno.ELOOP: ("is a link that leads back to itself", "give the path that is meant"),
    errno.EMFILE: ("too many files are open", "raise the limit (ulimit -n)"),
    errno.EIO: ("its disk fails", "check the disk, or give a path on another"),
    errno.EBUSY: ("is in use", "end what uses it, or give another path"),
}
"""What is wrong, and what to do, by the number of the error."""


def sentence(error: OSError) -> str:
    """The path, what is wrong with it, what to do.

    What libraries raise as such an error without a number is in their own words.
    """
    if error.errno is None:
        return str(error)
    path = error.filename if error.filename2 is None else error.filename2
    place = "" if path is None else f"{shortened(os.fsdecode(path), LONGEST_PATH)}: "
    return place + "; ".join(part for part in _said(error, path) if part)


def problem(error: OSError) -> str:
    """What is wrong, where the path and what to do are said by others."""
    return _said(error, error.filename)[0] if error.errno is not None else str(error)


def refuse_unmakeable(path: Path) -> None:
    """Finds out, before hours of work, that nothing can be written at a place.

    Args:
        path: of a file or a folder that may not be there yet.

    Raises:
        OSError: something above it is a file, or its folder can't be written to.
    """
    there = next(place for place in (path, *path.parents, Path()) if place.exists())
    if there != path and not there.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    if not os.access(there, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


def _said(error: OSError, path: str | bytes | None) -> tuple[str, str]:
    number = error.errno or 0
    if number in (errno.ENOTDIR, errno.EEXIST) and path is not None:
        way = Path(os.fsdecode(path))
        block = next((place for place in (way, *way.parents) if place.is_file()), None)
        if block is not None and (block != way or number == errno.ENOTDIR):
            return f"{block} is a file, where a folder is needed", "give another path"
    if number in SAID:
        return SAID[number]
    return (error.strerror or os.strerror(number)).lower(), "check that place"
