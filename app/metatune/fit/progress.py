"""What a user sees while a run goes on."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType, TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from metatune import hypergrad
from metatune.data import Progress as Tokenizing
from metatune.hypergrad.estimator import Listener

QUIET_SECONDS = 15
"""The longest silence where there are no bars to watch."""


@contextmanager
def tokenizing(console: Console) -> Iterator[Callable[[Tokenizing], None]]:
    """Shows how far the tokenizing of the data is, and a line for each domain that is done.

    Args:
        console: where to print.

    Yields:
        What `metatune.inner.prepare_file` tells.
    """
    spoke = began = time.monotonic()
    with console.status("reading the data") as status:

        def tell(progress: Tokenizing) -> None:
            nonlocal spoke, began
            now = time.monotonic()
            line = (
                f"tokenizing {progress.domain}: {progress.bytes / 1e6:,.1f} MB, "
                f"{progress.documents:,} documents, {progress.tokens:,} tokens, "
                f"{progress.bytes / 1e6 / max(now - began, 1e-9):.1f} MB/s"
            )
            status.update(line)
            if progress.done or (not console.is_terminal and now - spoke > QUIET_SECONDS):
                console.print(line, highlight=False)
                spoke = now
            if progress.done:
                began = now

        yield tell


class Display:
    """Two bars on a terminal (outer steps, inner steps), and a line for every outer step.

    Where the output is no terminal, lines alone, with one in between every `QUIET_SECONDS`.
    """

    def __init__(
        self, console: Console, outer_steps: int, done: int = 0, what: str = "outer steps"
    ):
        """Prepares the display of a run.

        Args:
            console: where to print.
            outer_steps: how many there are.
            done: how many were done before this process began.
            what: what the outer bar counts.
        """
        self._console = console
        self._outer_steps = outer_steps
        self._done = done
        self._latest_seconds = 0.0
        self._spoke = time.monotonic()
        self._progress = Progress(
            TextColumn("{task.description:<14}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._outer = self._progress.add_task(what, total=outer_steps, completed=done, note="")
        self._inner = self._progress.add_task("inner steps", total=1, note="compiling")

    def __enter__(self) -> "Display":
        """Shows the bars."""
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Takes the bars away."""
        self._progress.stop()

    def say(self, text: str) -> None:
        """Prints a line."""
        self._spoke = time.monotonic()
        self._console.print(text, highlight=False, soft_wrap=True)

    def done(self, count: int) -> None:
        """Moves the outer bar."""
        self._progress.update(self._outer, completed=count)

    def expect(self, outer_steps: int) -> None:
        """Learns how many outer steps there are now that a phase has ended before its last."""
        self._outer_steps = outer_steps
        self._progress.update(self._outer, total=outer_steps)

    def listener(self, what: str) -> Listener:
        """A listener that moves the inner bar; `what` names the computation."""

        def hear(heard: hypergrad.Progress) -> None:
            note = f"{what} {heard.phase}, inner loss {heard.loss:.3f}"
            self._progress.update(self._inner, total=heard.steps, completed=heard.step, note=note)
            if not self._console.is_terminal and time.monotonic() - self._spoke > QUIET_SECONDS:
                self.say(f"  {note}, inner step {heard.step}/{heard.steps}")

        return hear

    def outer_step(
        self,
        step: int,
        *,
        objective: float,
        held_out: float,
        best: float,
        norms: Mapping[str, float],
        rates: str,
        seconds: float,
        signals: Mapping[str, float | None] = MappingProxyType({}),
    ) -> None:
        """Tells of a finished outer step.

        Args:
            step: which.
            objective: what was differentiated, in `recipe.measures.unit`.
            held_out: what the judges measured at the same meta-parameters, likewise; not a number
                if they weren't asked.
            best: the smallest of these so far.
            norms: norm of the hypergradient by tunable.
            rates: the tuned rates in a few words.
            seconds: what the step took.
            signals: median signal to noise of the hypergradient by tunable, where it is known.
        """
        self._done, self._latest_seconds = step + 1, seconds
        judged = f"held-out {held_out:.4f} (best {best:.4f})  " if held_out == held_out else ""
        clear = {key: f" (signal {m:.2g})" for key, m in signals.items() if m is not None}
        gradient = "  ".join(
            f"|d {key}| {norm:.3g}{clear.get(key, '')}" for key, norm in norms.items()
        )
        self.say(
            f"outer step {step + 1}/{self._outer_steps}  objective {objective:.4f}  "
            f"{judged}{gradient}  {rates}  "
            f"{seconds:.1f} s  {self.time_left()}"
        )
        self._progress.update(self._outer, completed=self._done, note=self.time_left())

    def time_left(self) -> str:
        """How long the remaining outer steps will take at the pace of the latest.

        Too long after the first, which compiles.
        """
        left = self._latest_seconds * (self._outer_steps - self._done)
        return f"about {left / 60:.0f} min left" if left > 90 else f"about {left:.0f} s left"
