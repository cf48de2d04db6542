"""Commands that train elsewhere: each is given hyperparameters, and prints a loss.

No shell is involved. A command has a process group of its own, so that what it started ends with
it; its output goes to files, so that none waits for a reader.
"""

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from math import inf
from pathlib import Path
from typing import Final, NamedTuple

from metatune.runs import children, stops

POLL_SECONDS: Final = 0.02
TAIL: Final = 2000
"""Bytes of an output that are read, from its end."""
TUNED: Final = "METATUNE_TUNED"
"""The environment variable that names the file with the hyperparameters."""


class Given(NamedTuple):
    """What a command gets.

    Attributes:
        document: on its standard input.
        tuned: in the file that `METATUNE_TUNED` names.
    """

    document: str
    tuned: str


class Result(NamedTuple):
    """What came of a command.

    Attributes:
        loss: what it printed, maybe not a finite number; None if it failed.
        seconds: that it took.
        problem: how it failed; empty if it didn't.
        stderr: the end of what it said, if it failed.
    """

    loss: float | None
    seconds: float
    problem: str = ""
    stderr: str = ""


class _Running(NamedTuple):
    number: int
    process: subprocess.Popen[bytes]
    folder: Path
    began: float


def run_all(
    arguments: Sequence[str],
    given: Sequence[Given],
    folder: Path,
    finished: Callable[[int, Result], None],
    *,
    parallel: int,
    timeout_seconds: float | None,
) -> None:
    """Runs a command once for each of `given`; none is left running, whatever happens.

    Args:
        arguments: program and arguments.
        given: what each run gets.
        folder: where their files may lie meanwhile.
        finished: is told of each, by its index, as it ends.
        parallel: commands at a time.
        timeout_seconds: after which a command is killed; None for never.

    Raises:
        OSError: the program can't be started.
    """
    waiting, running = list(enumerate(given)), list[_Running]()
    try:
        while waiting or running:
            while waiting and len(running) < parallel:
                with stops.held():
                    index, its = waiting.pop(0)
                    running.append(_started(arguments, its, folder / str(index), index))
            time.sleep(POLL_SECONDS)
            for one in list(running):
                if result := _result(one, timeout_seconds or inf):
                    running.remove(one)
                    children.forget(one.process)
                    finished(one.number, result)
    finally:
        children.end([one.process for one in running])


def _started(arguments: Sequence[str], given: Given, folder: Path, index: int) -> _Running:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "stdin").write_text(given.document, encoding="utf-8")
    tuned = folder / "tuned.json"
    tuned.write_text(given.tuned, encoding="utf-8")
    with (
        (folder / "stdin").open("rb") as stdin,
        (folder / "stdout").open("wb") as stdout,
        (folder / "stderr").open("wb") as stderr,
    ):
        process = children.start(
            arguments,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env={**os.environ, TUNED: str(tuned.absolute())},
        )
    return _Running(index, process, folder, time.monotonic())


def _result(one: _Running, timeout_seconds: float) -> Result | None:
    """What came of a command; None while it runs."""
    status, seconds = one.process.poll(), time.monotonic() - one.began
    if status is None:
        if seconds < timeout_seconds:
            return None
        children.end([one.process])
        problem = f"didn't end within {timeout_seconds:g} s"
    elif status:
        problem = f"ended with status {status}" if status > 0 else f"was ended by signal {-status}"
    else:
        lines = _tail(one.folder / "stdout").split("\n")
        last = lines[-1].strip()
        try:
            return Result(float(last), seconds)
        except ValueError:
            problem = f"must print a number on its last line, but printed {last[-80:]!r}"
    return Result(None, seconds, problem, _tail(one.folder / "stderr"))


def _tail(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL))
        return file.read().decode(errors="replace").rstrip()
