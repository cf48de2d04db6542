"""Programs that were started here, each with a process group of its own, and their end."""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from metatune.runs import stops

GRACE_SECONDS: Final = 5
"""From the request to end to the end by force."""
POLL_SECONDS: Final = 0.02

_groups: set[int] = set()


def start(arguments: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Starts a program in a process group of its own, which ends at the latest with this process.

    Args:
        arguments: program and arguments.
        options: as of `subprocess.Popen`.

    Raises:
        OSError: it can't be started.
    """
    with stops.held():  # or a signal between these two leaves a program that nobody knows
        process = subprocess.Popen[bytes](arguments, start_new_session=True, **options)
        _groups.add(process.pid)
    return process


def end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Asks programs and those that they started to end, then forces them."""
    for process in processes:
        _signal(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    try:
        while any(map(_alive, processes)) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
    finally:  # also when there is no patience for that
        for process in processes:
            _signal(process.pid, signal.SIGKILL)
            process.wait()
            _groups.discard(process.pid)


def forget(process: subprocess.Popen[bytes]) -> None:
    """Lets go of a program that has ended by itself."""
    _groups.discard(process.pid)


def _alive(process: subprocess.Popen[bytes]) -> bool:
    """Whether a program, or one that it started, hasn't ended."""
    process.poll()
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True


def _force() -> None:
    """Ends all at once, because this process does."""
    for group in list(_groups):
        _signal(group, signal.SIGKILL)


def _signal(group: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


stops.always_before_the_end(_force)
