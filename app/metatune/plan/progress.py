"""How far a prediction is: told while programs are compiled and timed, shown as a line."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from rich.console import Console

from metatune.report.progress import QUIET_SECONDS, Voice

Tell = Callable[[str, float], None]
"""Is told what is done at the moment, and the seconds left of it; not a number if unknown."""


class PlanProgress(NamedTuple):
    """Where a prediction is.

    Attributes:
        way: what is predicted, in a few words.
        number: which of the ways, from 1.
        total: how many there are.
        doing: what is compiled or timed.
        seconds_left: of that; not a number if unknown.
    """

    way: str
    number: int
    total: int
    doing: str
    seconds_left: float

    def __str__(self) -> str:
        """In a line."""
        which = f"{self.way} ({self.number} of {self.total})" if self.total > 1 else self.way
        if math.isnan(self.seconds_left):
            return f"{which}: {self.doing}"
        return f"{which}: {self.doing}, about {self.seconds_left:.0f} s left"


Listener = Callable[[PlanProgress], None]


def silent(_: PlanProgress) -> None:
    """Tells nobody."""


def told(listener: Listener, way: str, number: int = 1, total: int = 1) -> Tell:
    """What tells of a way, as one of so many."""
    return lambda doing, left: listener(PlanProgress(way, number, total, doing, left))


@contextmanager
def shown(console: Console) -> Iterator[Listener]:
    """Shows progress: a line that changes on a terminal; elsewhere one for each stage.

    Args:
        console: where to print.

    Yields:
        What `plan` and `expected` tell.
    """
    with console.status("predicting") as status:
        if console.is_terminal:
            yield spoken(status.update, quiet_seconds=0)
        else:
            yield spoken(Voice(console).say)


def spoken(say: Callable[[str], None], quiet_seconds: float = QUIET_SECONDS) -> Listener:
    """A listener that says a line when something else is done, and again after a while.

    Args:
        say: prints a line.
        quiet_seconds: the longest silence.
    """
    spoke, latest = -math.inf, ""

    def hear(progress: PlanProgress) -> None:
        nonlocal spoke, latest
        now, stage = time.monotonic(), f"{progress.number} {progress.doing.split(' ')[0]}"
        if stage != latest or now - spoke >= quiet_seconds:
            say(str(progress))
            spoke, latest = now, stage

    return hear
