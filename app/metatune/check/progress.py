"""What a user sees while a recipe is checked."""

from rich.console import Console

from metatune import hypergrad
from metatune.check.subject import Task
from metatune.hypergrad.estimator import Listener
from metatune.report.progress import Bar, Tempo, Voice


class CheckDisplay:
    """A bar on a terminal; elsewhere a line every now and then. Both tell the time left.

    Work is counted in trainings. The first computation is mostly compilation, so that the pace is
    that of what follows.
    """

    def __init__(self, console: Console):
        """Prepares the display; `console` is where to print."""
        self._voice, self._bar, self._pace = Voice(console), Bar(console, total=1), Tempo()
        self._total = self._done = self._cost = 0.0

    def __enter__(self) -> "CheckDisplay":
        """Shows the bar."""
        self._bar.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        """Takes the bar away."""
        self._bar.__exit__()

    def begin(self, total: float) -> None:
        """Says how much there is to do, in trainings."""
        self._total = total
        self.say(
            f"as long as {total:.0f} trainings, and compilation; longer where slopes are rough"
        )

    def say(self, text: str) -> None:
        """Prints a line."""
        self._voice.say(text)

    def watch(self, work: Task) -> Listener:
        """A listener for the next computation."""
        if work.further:
            self._total += work.cost
        self._done, self._cost = self._done + self._cost, work.cost
        self._show(work.what)

        def hear(heard: hypergrad.Progress) -> None:
            self._show(f"{work.what}, {heard.phase}, inner step {heard.step}/{heard.steps}")

        return hear

    def _show(self, what: str) -> None:
        left = self._pace.left(self._done, self._total) if self._done else ""
        words = ", ".join(filter(None, (left, what)))
        self._bar.move(self._done, words, self._total)
        if self._voice.must_speak:
            self.say(f"  {self._done:.0f}/{self._total:.0f} {words}")
