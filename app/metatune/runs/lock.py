"""One process at a time writes into a folder.

The operating system holds the lock (flock), so that it ends with its process, however that ends. A
file beside tells who holds it. Where that is a process of another machine and the lock is free all
the same, either that machine is gone or the network filesystem doesn't pass locks on: that can't
be told apart from here, so a person must say.
"""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from filelock import FileLock, Timeout

from metatune.runs import stops
from metatune.runs.faults import OUT, Given, RunFolderError, of_given
from metatune.runs.files import partial, replace

LOCK: Final = ".metatune.lock"
"""Locked while a process writes into the folder; always empty, and never deleted: another process
may be about to lock it."""
HOLDER: Final = ".metatune.holder.json"
"""Who holds the lock."""


@contextmanager
def locked(folder: Path, given: Given = OUT) -> Iterator[None]:
    """Holds a folder, which exists, against other processes.

    Args:
        folder: the folder.
        given: what the command was given it as, for errors.

    Raises:
        RunFolderError: another process holds it, or may.
    """
    with _acquired(folder, given):
        holder = folder / HOLDER
        replace(holder, json.dumps(_self(), indent=1) + "\n")
        try:
            with stops.before_the_end(lambda: holder.unlink(missing_ok=True)):
                yield
        finally:
            holder.unlink(missing_ok=True)


def refuse_held(folder: Path) -> None:
    """Looks whether another process holds a folder; leaves no trace.

    Raises:
        RunFolderError: one does, or may.
    """
    if (folder / LOCK).exists() and os.access(folder, os.W_OK):
        with _acquired(folder, OUT):
            pass


@contextmanager
def _acquired(folder: Path, given: Given) -> Iterator[None]:
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise _in_use(folder, _read(folder), given) from None
    try:
        _refuse_alive(folder, _read(folder), given)
        yield
    finally:
        lock.release()


def _refuse_alive(folder: Path, holder: dict[str, Any] | None, given: Given) -> None:
    """Refuses a holder that may be alive though its lock is free."""
    if holder is None or holder == {**_self(), "since": holder.get("since")}:
        return
    if holder.get("host") != socket.gethostname():
        raise of_given(
            given,
            folder,
            f"was in use by process {holder.get('process')} of another machine, "
            f"{holder.get('host')}, since {holder.get('since')}, and whether that has ended can't "
            f"be seen from {socket.gethostname()}; if it has, delete {folder / HOLDER} and go on, "
            f"else {_cure('wait for it', given)}",
        )
    process = holder.get("process")
    if isinstance(process, int) and _began(process) == holder.get("began") is not None:
        raise _in_use(folder, holder, given)  # a filesystem without locks


def _in_use(folder: Path, holder: dict[str, Any] | None, given: Given) -> RunFolderError:
    who = (
        f"process {holder.get('process')} on {holder.get('host')} since {holder.get('since')}"
        if holder
        else "another process"
    )
    return of_given(given, folder, f"is in use by {who}; {_cure('wait for its end', given)}")


def _cure(waiting: str, given: Given) -> str:
    """Another folder in the place of a run is another run: no cure."""
    return f"{waiting}, or give another folder" if given == OUT else waiting


def _read(folder: Path) -> dict[str, Any] | None:
    """What is written of the holder; None for nothing that can be read."""
    try:
        held = json.loads((folder / HOLDER).read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return held if isinstance(held, dict) else None


def _self() -> dict[str, Any]:
    return {
        "process": os.getpid(),
        "host": socket.gethostname(),
        "began": _began(os.getpid()),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _began(process: int) -> str | None:
    """What tells a process from a later one of the same number; None where it isn't known.

    The boot, and clock ticks from it to the beginning of the process, on Linux.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return f"{boot} {fields[19]}"


HOUSEKEEPING: Final = frozenset({LOCK, HOLDER, partial(Path(HOLDER)).name})
"""What a lock leaves in a folder, which doesn't count as its content."""
