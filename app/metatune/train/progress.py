"""What is told of a training while it goes on: on the terminal, in metrics and in TensorBoard."""

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from metatune.fit.telling.progress import QUIET_SECONDS
from metatune.report.tensorboard import EventWriter
from metatune.train.folder import TrainingFolder


class Teller:
    """A bar on a terminal, lines of metrics, and TensorBoard's events."""

    def __init__(
        self, folder: TrainingFolder, console: Console, *, units: str, steps: int, done: int
    ):
        """Opens the files, and drops what an earlier process wrote of steps to be done again.

        Args:
            folder: of the training.
            console: where to print.
            units: what its losses are, in a sentence.
            steps: of the training.
            done: of these, before this process began.
        """
        self._console = console
        self._steps = steps
        self._metrics = folder.metrics
        self._metrics.forget_metrics_from(done + 1)
        self._events = EventWriter(folder.tensorboard, purge_step=done + 1 if done else None)
        if not done:
            self._events.text("units", units)
        self._compiled: tuple[int, float] | None = None
        self._spoke = 0.0
        self._progress = Progress(
            TextColumn("training"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._bar = self._progress.add_task("", total=steps, completed=done, note="compiling")

    def __enter__(self) -> "Teller":
        """Shows the bar."""
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Takes the bar away and closes the files."""
        self._progress.stop()
        self._events.close()

    def say(self, text: str) -> None:
        """Prints a line."""
        self._console.print(text, highlight=False, soft_wrap=True)

    def stretch(self, line: Mapping[str, Any]) -> None:
        """Tells of steps that are done; their `step` is one past the last."""
        self._write(line)
        now, step = time.monotonic(), line["step"]
        if self._compiled is None:
            self._compiled = step, now
        left = self._left(step, now)
        self._progress.update(self._bar, completed=step, note=f"loss {line['loss']:.3f}  {left}")
        if left and not self._console.is_terminal and now - self._spoke > QUIET_SECONDS:
            self._spoke = now
            self.say(f"step {step}/{self._steps}  loss {line['loss']:.4f}  {left}")

    def measured(self, step: int) -> bool:
        """Whether there is an evaluation of a step, by an earlier process."""
        lines = self._metrics.read_metrics()
        return any(line["step"] == step and "held_out" in line for line in lines)

    def evaluation(self, line: Mapping[str, Any]) -> None:
        """Tells of held-out losses."""
        self._write(line)
        by_domain = "  ".join(f"{name} {loss:.4f}" for name, loss in line["domains"].items())
        self.say(
            f"step {line['step']}/{self._steps}  held-out {line['held_out']:.4f}  ({by_domain})"
        )

    def _write(self, line: Mapping[str, Any]) -> None:
        self._metrics.append_metrics(line)
        for key, value in line.items():
            numbers = value if isinstance(value, Mapping) else {"": value}
            for name, number in numbers.items():
                if key != "step":
                    self._events.scalar(f"{key}/{name}" if name else key, number, line["step"])

    def _left(self, step: int, now: float) -> str:
        """How long the rest will take, without compiling: known after the second stretch."""
        assert self._compiled is not None
        first, then = self._compiled
        if step == first:
            return ""
        left = (now - then) / (step - first) * (self._steps - step)
        return f"about {left / 60:.0f} min left" if left > 90 else f"about {left:.0f} s left"
