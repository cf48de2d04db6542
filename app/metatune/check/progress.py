"""What a user sees while a recipe is checked."""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from metatune import hypergrad
from metatune.check.subject import Work
from metatune.hypergrad.estimator import Listener

QUIET_SECONDS = 15
"""The longest silence where there is no bar to watch."""


class Display:
    """A bar on a terminal; elsewhere a line every `QUIET_SECONDS`. Both tell the time left.

    Work is counted in trainings. The first computation is mostly compilation, so that the pace is
    that of what follows.
    """

    def __init__(self, console: Console):
        """Prepares the display; `console` is where to print."""
        self._console = console
        self._total = self._done = self._cost = 0.0
        self._spoke = time.monotonic()
        self._paced: tuple[float, float] | None = None
        self._progress = Progress(
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._bar = self._progress.add_task("compiling", total=1)

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

    def begin(self, total: float) -> None:
        """Says how much there is to do, in trainings."""
        self._total = total
        self.say(
            f"as long as {total:.0f} trainings, and compilation; longer where slopes are rough"
        )

    def say(self, text: str) -> None:
        """Prints a line."""
        self._spoke = time.monotonic()
        self._console.print(text, highlight=False, soft_wrap=True)

    def watch(self, work: Work) -> Listener:
        """A listener for the next computation."""
        if work.further:
            self._total += work.cost
        self._done, self._cost = self._done + self._cost, work.cost
        if self._done and self._paced is None:
            self._paced = time.monotonic(), self._done
        self._show(work.what)

        def hear(heard: hypergrad.Progress) -> None:
            self._show(f"{work.what}, {heard.phase}, inner step {heard.step}/{heard.steps}")

        return hear

    def _left(self) -> str:
        """In words, from what was done since the first computation."""
        if self._paced is None or self._done <= self._paced[1]:
            return ""
        since, already = self._paced
        seconds = (time.monotonic() - since) / (self._done - already) * (self._total - self._done)
        return (
            f"about {seconds / 60:.0f} min left" if seconds >= 90 else f"about {seconds:.0f} s left"
        )

    def _show(self, what: str) -> None:
        words = ", ".join(filter(None, (self._left(), what)))
        self._progress.update(self._bar, total=self._total, completed=self._done, description=words)
        if not self._console.is_terminal and time.monotonic() - self._spoke > QUIET_SECONDS:
            self.say(f"  {self._done:.0f}/{self._total:.0f} {words}")
