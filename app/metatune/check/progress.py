"""What a user sees while a recipe is checked."""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from metatune import hypergrad
from metatune.hypergrad.estimator import Listener

QUIET_SECONDS = 15
"""The longest silence where there is no bar to watch."""


class Display:
    """A bar on a terminal; elsewhere a line every `QUIET_SECONDS`."""

    def __init__(self, console: Console):
        """Prepares the display; `console` is where to print."""
        self.total = 1
        self._console = console
        self._done = 0
        self._spoke = time.monotonic()
        self._progress = Progress(
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._bar = self._progress.add_task("compiling", total=self.total)

    def __enter__(self) -> "Display":
        """Shows the bar."""
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Takes the bar away."""
        self._progress.stop()

    def say(self, text: str) -> None:
        """Prints a line."""
        self._spoke = time.monotonic()
        self._console.print(text, highlight=False, soft_wrap=True)

    def watch(self, what: str) -> Listener:
        """A listener for the next computation, which `what` names."""
        self._done += 1
        number = self._done
        self._show(number, what, "")

        def hear(heard: hypergrad.Progress) -> None:
            self._show(number, what, f", {heard.phase}, inner step {heard.step}/{heard.steps}")

        return hear

    def _show(self, number: int, what: str, where: str) -> None:
        self._progress.update(
            self._bar, total=self.total, completed=number - 1, description=what + where
        )
        if not self._console.is_terminal and time.monotonic() - self._spoke > QUIET_SECONDS:
            self.say(f"  {number}/{self.total} {what}{where}")
