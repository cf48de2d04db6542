"""What the displays of long commands share: lines, a bar, and how much time is left."""

import math
import time
from datetime import timedelta
from typing import Final, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

QUIET_SECONDS: Final = 15
"""The longest silence where there is no bar to watch."""
MINUTES_FROM: Final = 90
"""Seconds above which a time is told in minutes."""

Shown = TypeVar("Shown", bound="Bar")


def time_left(seconds: float) -> str:
    """How much time is left, in words."""
    if seconds > MINUTES_FROM:
        return f"about {seconds / 60:.0f} min left"
    return f"about {seconds:.0f} s left"


def columns(*before: ProgressColumn, width: int, after: str) -> tuple[ProgressColumn, ...]:
    """The columns of a bar: how much of how much, and for how long.

    Args:
        before: what stands in front of it.
        width: of the bar, in characters.
        after: what stands behind it, as Rich formats a task.
    """
    return (
        *before,
        BarColumn(bar_width=width),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        Clock(),
        TextColumn(after),
    )


class Clock(ProgressColumn):
    """How long it has taken so far; goes on where all is counted and something still follows."""

    def render(self, task: Task) -> Text:
        """In hours, minutes and seconds."""
        return Text(str(timedelta(seconds=int(task.elapsed or 0))), style="progress.elapsed")


class Voice:
    """Lines on a console, and for how long there were none."""

    def __init__(self, console: Console, *, at_once: bool = False):
        """Begins now.

        Args:
            console: where to print.
            at_once: whether the first line needn't be waited for.
        """
        self._console = console
        self._spoke = -math.inf if at_once else time.monotonic()

    def say(self, text: str) -> None:
        """Prints a line."""
        self._spoke = time.monotonic()
        # What is wider than the console is a path, which can be copied only where it is whole.
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    @property
    def must_speak(self) -> bool:
        """Whether there is nothing to watch, and was nothing to read for too long."""
        return not self._console.is_terminal and time.monotonic() - self._spoke > QUIET_SECONDS


class Tempo:
    """How fast work is done, from the end of its first part on, which compiles."""

    def __init__(self) -> None:
        """Nothing is done yet."""
        self._since: tuple[float, float] | None = None

    def left(self, done: float, total: float) -> str:
        """How long the rest takes, in words; empty at the first call, and until more is done.

        Args:
            done: so far, of which the first call's counts as the first part.
            total: there is.
        """
        now = time.monotonic()
        since, already = self._since = self._since or (now, done)
        if done <= already:
            return ""
        return time_left((now - since) / (done - already) * (total - done))


class Bar:
    """A bar on a terminal, which goes when the work ends; elsewhere there is none."""

    def __init__(self, console: Console, *before: ProgressColumn, total: float, done: float = 0):
        """Prepares it.

        Args:
            console: where to print.
            before: columns in front of it.
            total: work that there is.
            done: of it, before this process began.
        """
        self._progress = Progress(
            *columns(*before, width=24, after="{task.description}"),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task = self._progress.add_task("compiling", total=total, completed=int(done))

    def __enter__(self: Shown) -> Shown:
        """Shows it."""
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Takes it away."""
        self._progress.stop()

    def move(self, done: float, what: str, total: float | None = None) -> None:
        """Shows how much is done, and `what` behind it; a new `total` if one is given."""
        self._progress.update(self._task, total=total, completed=done, description=what)
