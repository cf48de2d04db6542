"""What is told of a training while it goes on: on the terminal, in metrics and in TensorBoard."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import TextColumn

from metatune.report.progress import Bar, Tempo, Voice
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
        self._steps = steps
        self._folder = folder
        folder.forget_metrics_from(done + 1)
        self._events = EventWriter(folder.tensorboard, purge_step=done + 1 if done else None)
        if not done:
            self._events.text("units", units)
        self._voice, self._pace = Voice(console, at_once=True), Tempo()
        self._bar = Bar(console, TextColumn("training"), total=steps, done=done)

    def __enter__(self) -> "Teller":
        """Shows the bar."""
        self._bar.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        """Takes the bar away and closes the files."""
        self._bar.__exit__()
        self._events.close()

    def say(self, text: str) -> None:
        """Prints a line."""
        self._voice.say(text)

    def block(self, line: Mapping[str, Any]) -> None:
        """Tells of a block of steps that is done; its `step` is one past the last."""
        self._write(line)
        step = line["step"]
        left = self._pace.left(step, self._steps)
        self._bar.move(step, f"loss {line['loss']:.3f}  {left}")
        if left and self._voice.must_speak:
            self.say(f"step {step}/{self._steps}  loss {line['loss']:.4f}  {left}")

    def measured(self, step: int) -> bool:
        """Whether there is an evaluation of a step, by an earlier process."""
        lines = self._folder.read_metrics()
        return any(line["step"] == step and "held_out" in line for line in lines)

    def evaluation(self, line: Mapping[str, Any]) -> None:
        """Tells of held-out losses."""
        self._write(line)
        by_domain = "  ".join(f"{name} {loss:.4f}" for name, loss in line["domains"].items())
        self.say(
            f"step {line['step']}/{self._steps}  held-out {line['held_out']:.4f}  ({by_domain})"
        )

    def _write(self, line: Mapping[str, Any]) -> None:
        self._folder.append_metrics(line)
        for key, value in line.items():
            numbers = value if isinstance(value, Mapping) else {"": value}
            for name, number in numbers.items():
                if key != "step":
                    self._events.scalar(f"{key}/{name}" if name else key, number, line["step"])
