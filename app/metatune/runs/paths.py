"""What the folder of a run and that of a training have in common: paths, and lines of metrics."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final

from metatune.recipe import reading
from metatune.recipe.schema import DevicesSpec
from metatune.runs.files import append_line, replace, whole_lines

ANEW: Final = "begin anew with --overwrite of the command that wrote the folder"


@dataclass(frozen=True)
class Folder:
    """Paths that are the same in both.

    Attributes:
        path: the folder.
    """

    path: Path

    @property
    def recipe(self) -> Path:
        """The resolved recipe."""
        return self.path / "recipe.yaml"

    @property
    def metrics(self) -> Path:
        """A line of JSON for each point of a search, each block of steps, or each evaluation."""
        return self.path / "metrics.jsonl"

    @property
    def tensorboard(self) -> Path:
        """Event files."""
        return self.path / "tensorboard"

    @property
    def checkpoints(self) -> Path:
        """All that is needed to go on bit for bit."""
        return self.path / "checkpoints"

    def day(self) -> date | None:
        """The day that the chat template of what was begun here is told; None for none.

        Raises:
            RecipeError: its recipe can't be read.
        """
        if not self.recipe.exists():
            return None
        kept = reading.read(self.recipe).data.date
        return None if kept is None else date.fromisoformat(kept)

    def devices(self) -> DevicesSpec | None:
        """The mesh that what was begun here names; None where it names none.

        Raises:
            RecipeError: its recipe can't be read.
        """
        if not self.recipe.exists():
            return None
        kept = reading.read(self.recipe).devices
        return None if kept == "auto" else kept

    def append_metrics(self, line: Mapping[str, Any]) -> None:
        """Adds a line to the metrics."""
        append_line(self.metrics, line)

    def read_metrics(self) -> list[dict[str, Any]]:
        """The metrics so far; a last line that was cut off is left out.

        Raises:
            RunFolderError: another line is damaged.
        """
        return whole_lines(self.metrics, f"delete the line, or {ANEW}")

    def forget_metrics_from(self, step: int) -> None:
        """Drops the lines from `step` on, which is about to be reached again."""
        lines = [json.dumps(line) for line in self.read_metrics() if line["step"] < step]
        replace(self.metrics, "".join(line + "\n" for line in lines))
