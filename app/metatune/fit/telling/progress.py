"""What a user sees while a run goes on."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import Progress, TextColumn
from rich.spinner import Spinner

from metatune import hypergrad
from metatune.data import TokenizingProgress
from metatune.fit.telling.remaining import Taken, seconds_left
from metatune.fit.telling.waits import Durations, Waits
from metatune.hypergrad.estimator import Listener
from metatune.report import progress as displays
from metatune.report.lines import laid_out, wrapped
from metatune.report.progress import Voice, columns, time_left

FRAMES_PER_SECOND = 5


@contextmanager
def tokenizing(console: Console) -> Iterator[Callable[[TokenizingProgress], None]]:
    """Shows how far the tokenizing of the data is, and a line for each domain that is done.

    Args:
        console: where to print.

    Yields:
        What `metatune.inner.prepare_file` tells.
    """
    voice, began = Voice(console), time.monotonic()
    with console.status("reading the data") as status:

        def tell(progress: TokenizingProgress) -> None:
            nonlocal began
            now = time.monotonic()
            line = (
                f"tokenizing {progress.domain}: {progress.bytes / 1e6:,.1f} MB, "
                f"{progress.documents:,} documents, {progress.tokens:,} tokens, "
                f"{progress.bytes / 1e6 / max(now - began, 1e-9):.1f} MB/s"
            )
            status.update(line)
            if progress.done or voice.must_speak:
                voice.say(line)
            if progress.done:
                began = now

        yield tell


class SearchDisplay:
    """Two bars on a terminal (outer steps, inner steps), and a line for every point of the search.

    While a program is compiled, nothing tells how far that is: then a spinner, the time that has
    passed and the time of the last time stand in place of the lower bar, drawn by a thread. Where
    the output is no terminal there are lines alone, with one in between every `QUIET_SECONDS`, of
    a thread too.
    """

    def __init__(
        self,
        console: Console,
        outer_steps: int,
        ahead: Sequence[int] = (),
        done: int = 0,
        what: str = "outer steps",
        durations: Durations | None = None,
        between: Callable[[], None] = lambda: None,
    ):
        """Prepares the display of a run.

        Args:
            console: where to print.
            outer_steps: how many there are.
            ahead: inner steps of the last of them; () where each takes as long as another.
            done: how many were done before this process began.
            what: what the outer bar counts.
            durations: what is known of how long programs take to compile; None for nothing.
            between: is called after each segment; may end the run.
        """
        self._console = console
        self._between = between
        self._outer_steps = outer_steps
        self._done = done
        self._ahead = ahead
        self._taken: list[Taken] = []
        self._voice = Voice(console)
        self._waits = Waits(durations or Durations(None), self.say)
        self._outer, self._inner = _bar(), _bar()
        self._steps = self._outer.add_task(what, total=outer_steps, completed=done, note="")
        self._segments = self._inner.add_task("", total=1, note="")
        self._spinner = Spinner("dots")
        self._live = Live(
            console=console,
            transient=True,
            refresh_per_second=FRAMES_PER_SECOND,
            get_renderable=self._frame,
        )
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._speak_up, daemon=True)

    def __enter__(self) -> "SearchDisplay":
        """Shows the bars."""
        if self._console.is_terminal:
            self._live.start()
        else:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Takes the bars away."""
        self._ended.set()
        if self._console.is_terminal:
            self._live.stop()
        else:
            self._thread.join()

    @property
    def doing(self) -> str:
        """What the run is doing; empty for nothing that takes long."""
        program = self._waits.compiling
        return self._waits.doing if program is None else f"compiling {program}"

    @property
    def _width(self) -> int | None:
        """Characters of a line; None where lines aren't broken."""
        return self._console.width if self._console.is_terminal else None

    def say(self, text: str) -> None:
        """Prints a line."""
        self._voice.say(wrapped(text, self._width))

    def done(self, count: int) -> None:
        """Moves the outer bar."""
        self._outer.update(self._steps, completed=count)

    def expect(self, outer_steps: int, ahead: Sequence[int]) -> None:
        """Learns which outer steps there are now that a phase has ended before its last."""
        self._outer_steps, self._ahead = outer_steps, ahead
        self._outer.update(self._steps, total=outer_steps)

    @contextmanager
    def waiting(self, what: str, programs: Sequence[str] = ()) -> Iterator[None]:
        """While something goes on that tells nothing of itself; arguments as of `listener`."""
        self._waits.begin(what, programs)
        yield
        self._waits.end()

    def listener(self, what: str, programs: Sequence[str] = ()) -> Listener:
        """A listener that moves the inner bar.

        Args:
            what: names the computation.
            programs: that of its segments, and that of what comes after them, as they are called
                while they compile; empty for a computation that needn't compile anything.
        """
        self._waits.begin(what, programs)
        self._inner.reset(self._segments, description=what, total=1, completed=0, note="")

        def hear(heard: hypergrad.Progress) -> None:
            self._waits.heard(heard)
            now, loss = f"{what} {heard.phase}", f"loss {heard.loss:.3f}"
            self._inner.update(
                self._segments,
                description=now,
                total=heard.steps,
                completed=heard.step,
                note=loss,
            )
            if self._voice.must_speak:
                self.say(f"  {now}, inner {loss}, inner step {heard.step}/{heard.steps}")
            self._between()

        return hear

    def point(self, line: Mapping[str, Any], *, rates: str = "", note: str = "") -> None:
        """Tells of a point of the search.

        Args:
            line: of the metrics.
            rates: the learning rates there in a few words.
            note: what else there is to tell.
        """
        step, judged, average = line["step"], line["held_out"], line.get("held_out_average")
        fields = [f"point {step}/{self._outer_steps}"]
        if (objective := line.get("objective")) is not None:
            fields.append(f"objective {objective:.4f}")
        if judged is not None:
            fields.append(f"held-out {judged:.4f} (best {line['best_held_out']:.4f})")
        if average is not None:
            fields.append(f"average {average:.4f}")
        for key, norm in line.get("hypergradient_norm", {}).items():
            clear = line.get("signal", {}).get(key, {}).get("median")
            signal = "" if clear is None else f" (signal {clear:.2g})"
            fields.append(f"|d {key}| {norm:.3g}{signal}")
        fields += [rates, note, f"{line['seconds']:.1f} s"]
        if objective is not None:
            self._done = step + 1
            self._taken.append(Taken(line["inner_steps"], line["seconds"], line["phase"]))
            fields.append(self.time_left())
        self._voice.say(laid_out(fields, self._width))
        self._outer.update(self._steps, completed=self._done, note=self.time_left())

    def time_left(self) -> str:
        """How long the remaining outer steps will take at the pace of the latest, and what follows.

        Too long after the first, which compiles.
        """
        left = self._outer_steps - self._done
        if not left:
            return "the result is next"
        seconds = seconds_left(self._taken, self._ahead, left)
        return f"{time_left(seconds)}, then the result"

    def _frame(self) -> RenderableType:
        """The bars; of what compiles a spinner."""
        if self._waits.compiling is None:
            return Group(self._outer, self._inner) if self._waits.doing else self._outer
        self._spinner.text = f"{self._waits.sentence}, {self._waits.seconds:.0f} s"
        return Group(self._outer, self._spinner)

    def _speak_up(self) -> None:
        """Breaks silences while a program compiles, and while a segment takes long."""
        while not self._ended.wait(min(1.0, displays.QUIET_SECONDS / 3)):
            waits = self._waits
            # Segments that follow each other are told of by who hears of them.
            silent = waits.compiling is not None or waits.seconds > displays.QUIET_SECONDS
            if self._voice.must_speak and silent and waits.doing:
                self.say(f"  {waits.sentence}, {waits.seconds:.0f} s so far")


def _bar() -> Progress:
    """A bar, to be drawn by others."""
    before = TextColumn("{task.description}")
    return Progress(*columns(before, width=16, after="{task.fields[note]}"), auto_refresh=False)
