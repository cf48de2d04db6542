"""A full disk, said as what it is: where, how much was needed, how much is free, what to do."""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
SAID: Final = re.compile(r"ENOSPC|No space left on device|EDQUOT|[Qq]uota exceeded")
"""What libraries that swallow the number say (TensorStore in a ValueError, safetensors)."""
GO_ON: Final = (
    "then go on with the same command, with --resume if it had begun: what was kept before is whole"
)


class DiskFull(RuntimeError):
    """A file can't be written for want of room; what was written before is whole."""


@contextmanager
def room_for(path: Path, needed: int) -> Iterator[None]:
    """Says of a full disk what was to be written.

    Args:
        path: of what is written within the `with`.
        needed: its bytes.

    Raises:
        DiskFull: in the place of any error that comes of a full disk.
    """
    if _free(path) < needed:
        # Some libraries fill the disk first, and then say so from several threads.
        raise DiskFull(shortage(path, needed))
    try:
        yield
    except Exception as error:
        if is_full(error):
            raise DiskFull(shortage(path, needed)) from error
        raise


def is_full(error: BaseException) -> bool:
    """Whether an error, or one that it comes from, is of a full disk."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        if (isinstance(one, OSError) and one.errno in FULL) or SAID.search(str(one)):
            return True
        waiting += [one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            waiting += one.exceptions
    return False


def shortage(path: Path | None, needed: int | None = None) -> str:
    """What is said of a full disk.

    Args:
        path: of what was written; None where whoever met it doesn't say, as a write does.
        needed: bytes; None where that isn't known.
    """
    cure = f"free some, or raise the quota, {GO_ON}"
    if path is None:
        places = "the output folder, METATUNE_CACHE and the folder for temporary files"
        return f"a disk is full, of one of those that are written to ({places}): {cure}"
    free = _free(path)
    wanted = "more bytes than are free are needed" if needed is None else f"{needed:,} bytes needed"
    return f"{path}: the disk is full: {wanted}, {free:,} free; {cure}"


def _free(path: Path) -> int:
    """Bytes that are free where a path is, or would be."""
    there = path.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    return shutil.disk_usage(os.fspath(there)).free
