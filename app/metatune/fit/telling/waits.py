"""What a run waits for, and how long programs took to compile the last time.

From when a program is first asked for in a process to the end of its first segment, all but a
little of the time goes into compiling: into tracing, which Python does, and into XLA. So much is
kept between processes, by the shape of the programs, to be told beside the time that has passed.
"""

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

import jax

from metatune import hypergrad
from metatune.data.cache import cache_folder, key_of
from metatune.fit.process.compiler import COMPILER
from metatune.fit.process.machine import packages
from metatune.recipe import schema

HYPERGRADIENT: Final = ("the hypergradient", "the rest of the hypergradient")
TRAINING: Final = ("a training", "its held-out loss")
PREDICTING: Final = ("all programs, and timing a few steps",)
"""Programs, as they are called while they compile: of segments, and of what comes after them."""

WITHOUT_SHAPE: Final = ("steps", "patience", "test", "fresh", "ema", "clip", "clip_norm")
"""What a recipe says of its outer problem that no large program depends on."""


class Durations:
    """Seconds that the programs of a recipe took to compile, by name."""

    def __init__(self, path: Path | None):
        """Reads `path`; without it, or where it isn't whole, nothing is known."""
        self._path = path
        self._known: dict[str, float] = {}
        if path is not None and path.exists():
            try:
                found = json.loads(path.read_text())
            except ValueError:
                return  # of a disk that was full: it is written anew
            self._known = {name: float(seconds) for name, seconds in found.items()}

    def last(self, program: str) -> float | None:
        """Seconds of the last time; None if that isn't known."""
        return self._known.get(program)

    def took(self, program: str, seconds: float) -> None:
        """Keeps what a program took.

        Raises:
            OSError: the file can't be written.
        """
        self._known[program] = round(seconds, 2)
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        beside = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        beside.write_text(json.dumps(self._known))
        os.replace(beside, self._path)


def durations_of(recipe: schema.Recipe) -> Durations:
    """What is known of the programs of a recipe, on this type of device and these versions."""
    outer = {key: v for key, v in asdict(recipe.outer).items() if key not in WITHOUT_SHAPE}
    shape = {
        "model": asdict(recipe.model),
        "data": [recipe.data.batch_size, recipe.data.sequence_length, len(recipe.data.domains)],
        "inner": asdict(recipe.inner),
        "tune": asdict(recipe.tune),
        "outer": outer,
        "device": [jax.devices()[0].device_kind, len(jax.devices())],
        "packages": packages(),
    }
    name = key_of(json.loads(json.dumps(shape, default=str)))
    return Durations(cache_folder().parent / "compiling" / f"{name}.json")


class Waits:
    """What is being waited for: a computation, where it stands, and whether it compiles.

    Attributes:
        doing: the computation, and where it stands; empty for none.
        compiling: the program that is compiled; None while none is.
        since: when that began, or the computation was last heard of.
    """

    def __init__(
        self,
        durations: Durations,
        complain: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ):
        """Waits for nothing yet.

        Args:
            durations: what is known of programs.
            complain: is told, once, that they can't be kept.
            clock: seconds.
        """
        self.doing = ""
        self.compiling: str | None = None
        self.since = clock()
        self._durations = durations
        self._complain = complain
        self._clock = clock
        self._compiled: set[str] = set()
        self._what = ""
        self._programs: Sequence[str] = ()
        self._last = False

    def begin(self, what: str, programs: Sequence[str] = ()) -> None:
        """A computation begins.

        Args:
            what: it is.
            programs: that it runs: that of its segments, and that of what comes after the last of
                them, each by a name that it has in other computations too. Empty for none.
        """
        if self._last:
            self._has_run()
        self._what, self._programs, self.doing, self._last = what, programs, what, False
        self._compiles(0)

    def heard(self, progress: hypergrad.Progress) -> None:
        """A segment of it is done."""
        self.doing = f"{self._what} {progress.phase}, inner step {progress.step}/{progress.steps}"
        self._has_run()
        if progress.step == progress.steps and progress.phase == "forward":
            self._last = True
            self._compiles(1)

    def end(self) -> None:
        """The computation is over."""
        self._has_run()
        self.doing, self._last = "", False

    @property
    def seconds(self) -> float:
        """How long it has been waited for."""
        return self._clock() - self.since

    @property
    def sentence(self) -> str:
        """What is waited for."""
        program = self.compiling  # at once: who asks may be another thread
        if program is None:
            return self.doing
        last = self._durations.last(program)
        took = "" if last is None else f" (took {last:.0f} s last time)"
        now = f": {part}" if (part := COMPILER.now) else ""
        return f"compiling {program}{took}{now}"

    def _compiles(self, number: int) -> None:
        """A program is about to run: it is compiled if it is for the first time."""
        self.since = self._clock()
        COMPILER.forget()
        program = self._programs[number] if number < len(self._programs) else None
        self.compiling = None if program in self._compiled else program

    def _has_run(self) -> None:
        began, self.since = self.since, self._clock()
        if (program := self.compiling) is None:
            return
        self.compiling = None
        self._compiled.add(program)
        try:
            self._durations.took(program, self.since - began)
        except OSError as error:
            self._durations = Durations(None)
            self._complain(f"how long programs take to compile can't be kept: {error}")
