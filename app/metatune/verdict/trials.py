"""The record of a verdict, a line for each training: a verdict that was stopped or killed goes on.

Contestants choose by the losses that they are told, and by nothing else. So a search is done again
from its beginning, and what was trained is answered from here: it comes to the same point. What was
under way is all that is lost.
"""

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from metatune.runs import stops
from metatune.runs.files import append_line, mend, whole_lines
from metatune.verdict.points import Point, as_json

FILE: Final = "verdict.jsonl"

RecordPart = Literal["search", "test", "parts"]
"""Searches, the measurement of all, and what each part of the tuned schedules is worth."""


class Trials:
    """The trainings of a run's verdict.

    A line has `of`, whose verdict it is; `part`, as of `RecordPart`; `name`, of the contestant;
    `point`; `seed`; `share` of the inner steps; `loss`, null where it diverged; of a proxy `shares`
    in its place, empty where it diverged; and `seconds` of the machine: of trainings that ran at
    once, each its part.
    """

    def __init__(self, run: Path, identity: Mapping[str, Any]):
        """Reads what is known.

        Args:
            run: the run folder.
            identity: what the numbers depend on besides name, point and seed.
        """
        self._file, self._identity = run / FILE, dict(identity)
        self._known: dict[tuple[Any, ...], dict[str, Any]] = {}
        self._lock = threading.Lock()
        for line in whole_lines(self._file, "delete the line: its training is done again"):
            if line.get("of") == self._identity:
                self._known[_key(line)] = line

    def mend(self) -> None:
        """Takes away a last line that was cut off; only who holds the run may."""
        mend(self._file)

    def loss(
        self, part: RecordPart, name: str, point: Point | str, seed: int, share: float = 1.0
    ) -> float | None:
        """A loss, infinite where the training diverged; None where it isn't known.

        Args:
            part: of the verdict.
            name: of the contestant.
            point: where it trained; or the hash of what was tuned.
            seed: of the training.
            share: of the inner steps.
        """
        found = self._known.get(_key(_line(part, name, point, seed, share)))
        if found is None:
            return None
        return float("inf") if found["loss"] is None else found["loss"]

    def shares(self, name: str, point: str, seed: int) -> tuple[float, ...] | None:
        """The shares that the proxy of a search came to, arguments as of `loss`."""
        found = self._known.get(_key(_line("search", name, point, seed, 1.0)))
        return None if found is None else tuple(found["shares"])

    def add_shares(
        self, name: str, point: str, seed: int, shares: tuple[float, ...], seconds: float
    ) -> None:
        """Keeps the shares of a proxy; arguments as of `add`."""
        line = _line("search", name, point, seed, 1.0)
        self._keep({**line, "shares": list(shares), "seconds": seconds})

    def add(
        self,
        part: RecordPart,
        name: str,
        point: Point | str,
        seed: int,
        loss: float,
        seconds: float,
        share: float = 1.0,
    ) -> None:
        """Keeps a loss; arguments as of `loss`, and how long the training took."""
        line = _line(part, name, point, seed, share)
        loss_or_none = None if loss == float("inf") else loss
        self._keep({**line, "loss": loss_or_none, "seconds": seconds})

    def _keep(self, line: Mapping[str, Any]) -> None:
        line = {"of": self._identity, **line}
        with stops.held(), self._lock:  # a thread's line is whole: the main one waits for it
            append_line(self._file, line)
            self._known[_key(line)] = line

    @property
    def count(self) -> int:
        """Trainings that are known, shortened ones and proxies too."""
        with self._lock:
            return len(self._known)

    def seconds(self, part: RecordPart, name: str) -> float:
        """What the trainings of a contestant took."""
        with self._lock:
            lines = list(self._known.values())
        mine = (e for e in lines if (e["part"], e["name"]) == (part, name))
        return sum(each["seconds"] for each in mine)


def _line(part: str, name: str, point: Point | str, seed: int, share: float) -> dict[str, Any]:
    stated = point if isinstance(point, str) else as_json(point)
    return {"part": part, "name": name, "point": stated, "seed": seed, "share": share}


def _key(line: Mapping[str, Any]) -> tuple[Any, ...]:
    point = line["point"]
    canonical = point if isinstance(point, str) else json.dumps(point, sort_keys=True)
    return line["part"], line["name"], canonical, line["seed"], line["share"]
