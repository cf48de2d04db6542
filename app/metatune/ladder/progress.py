"""What a user sees while a ladder is climbed."""

import threading

from rich.console import Console

from metatune import hypergrad
from metatune.hypergrad.estimator import Listener
from metatune.report.progress import Bar, Tempo, Voice


class Display:
    """A bar on a terminal; elsewhere a line every now and then. Both tell the time left.

    Work is counted in trainings of the proxy. Several threads may tell of theirs at a time.
    """

    def __init__(self, console: Console, total: float):
        """Prepares the display.

        Args:
            console: where to print.
            total: work that there is.
        """
        self._voice, self._pace = Voice(console, at_once=True), Tempo()
        self._bar = Bar(console, total=max(total, 1))
        self._total, self._done = total, 0.0
        self._lock = threading.RLock()

    def __enter__(self) -> "Display":
        """Shows the bar."""
        self._bar.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        """Takes the bar away."""
        self._bar.__exit__()

    def say(self, text: str) -> None:
        """Prints a line."""
        with self._lock:
            self._voice.say(text)

    def training(self, what: str, steps: int, work: float) -> Listener:
        """A listener for the next training, of so much work."""

        def hear(heard: hypergrad.Progress) -> None:
            self._show(f"{what}, inner step {heard.step}/{steps}")

        with self._lock:
            self._total = max(self._total, self._done + work)
            self._show(what)
        return hear

    def done(self, work: float) -> None:
        """A training is over, of so much work."""
        with self._lock:
            self._done += work

    def _show(self, what: str) -> None:
        with self._lock:
            left = self._pace.left(self._done, self._total) if self._done else ""
            words = ", ".join(filter(None, (left, what)))
            self._bar.move(self._done, words, self._total)
            if self._voice.must_speak:
                self.say(f"  {self._done:.0f}/{self._total:.0f} {words}")
