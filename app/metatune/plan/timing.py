"""Programs timed in turn: a few inner steps of each, until their quartiles stand."""

import time
from collections.abc import Callable, Mapping, Sequence
from math import ceil
from typing import Any, Final, NamedTuple

import jax
import numpy as np

from metatune.plan import compiling
from metatune.plan.compiling import Program
from metatune.plan.progress import Tell

LEAST_ROUNDS: Final = 3
"""Those that quartiles need at least."""
MOST_ROUNDS: Final = 9
SHARE: Final = 0.03
"""Of the seconds that are predicted: what timing them may take beyond `LEAST_ROUNDS`."""
LEAST_SECONDS: Final = 2.0
"""What it may take at any rate."""
SHORT_SECONDS: Final = 0.3
"""A step that takes longer is timed alone, a shorter one `STEPS` times in a row."""
STEPS: Final = 3
CALM: Final = 0.25
"""How far the upper quartile may lie above the least for timings to be taken from the cache."""


class Line(NamedTuple):
    """Seconds that grow with the number of inner steps.

    Attributes:
        segment: of a segment without a step.
        step: of each inner step in it.
    """

    segment: float
    step: float

    def of(self, steps: int, length: int) -> float:
        """Of `steps` inner steps in segments of `length`."""
        return ceil(steps / length) * self.segment + steps * self.step

    def over(self, cuts: Sequence[tuple[int, int]]) -> float:
        """Of segments, each from an inner step up to another."""
        return sum(self.segment + (stop - start) * self.step for start, stop in cuts)


Lines = Mapping[str, Line]
"""By the names of programs."""


class Probe(NamedTuple):
    """A program that is to be timed.

    A segment of no step and one of a few lie on a line that is exact for a whole one, too: what
    is skipped costs the same in both.

    Attributes:
        program: the program.
        most: inner steps that it can take.
        run: runs it, compiled, for a number of inner steps.
    """

    program: Program
    most: int
    run: Callable[[Any, int], Any]


class Timings(NamedTuple):
    """What was measured.

    Attributes:
        best: of the least seconds of each program: what a quiet machine takes.
        rounds: of each round, in which all programs had their turn.
    """

    best: Lines
    rounds: tuple[Lines, ...]


class Samples(NamedTuple):
    """Seconds of a program by round.

    Attributes:
        steps: inner steps of a full segment.
        empty: without a step.
        full: with so many steps.
    """

    steps: int
    empty: tuple[float, ...]
    full: tuple[float, ...]

    def line(self, empty: float, full: float) -> Line:
        """Through both."""
        # A step that took no time at all would make ways equal that aren't.
        return Line(empty, max((full - empty) / self.steps, 1e-3 * full / self.steps))

    @property
    def calm(self) -> bool:
        """Whether the rounds agree."""
        least, upper = np.quantile(self.full, [0, 0.75])
        return len(self.full) >= LEAST_ROUNDS and upper <= (1 + CALM) * least


def timed(probes: Sequence[Probe], whole: Callable[[Lines], float], tell: Tell) -> Timings:
    """Times programs, or takes from the cache what is known of them.

    Args:
        probes: the programs.
        whole: seconds that are predicted from lines.
        tell: is told how far it is.
    """
    samples = _kept(probes)
    if samples is None:
        programs = compiling.executables((probe.program for probe in probes), tell)
        samples = _measured(probes, programs, whole, tell)
        for probe in probes:
            found = samples[probe.program.name]
            compiling.keep_timings(probe.program, _kind(probe), found._asdict())
    return summary(samples)


def summary(samples: Mapping[str, Samples]) -> Timings:
    """What rounds come to."""
    best = {name: each.line(min(each.empty), min(each.full)) for name, each in samples.items()}
    count = min(len(each.full) for each in samples.values())
    rounds = tuple(
        {name: each.line(each.empty[at], each.full[at]) for name, each in samples.items()}
        for at in range(count)
    )
    return Timings(best, rounds)


def _kept(probes: Sequence[Probe]) -> dict[str, Samples] | None:
    """Timings from the cache; None unless it has calm ones of all."""
    found = {}
    for probe in probes:
        kept = compiling.known_timings(probe.program, _kind(probe))
        if not kept:
            return None
        samples = Samples(kept["steps"], tuple(kept["empty"]), tuple(kept["full"]))
        if not samples.calm:
            return None
        found[probe.program.name] = samples
    return found


def _kind(probe: Probe) -> str:
    """Under which timings of a program are kept."""
    return f"of {min(STEPS, probe.most)} steps at most"


def _measured(
    probes: Sequence[Probe],
    programs: Mapping[str, Any],
    whole: Callable[[Lines], float],
    tell: Tell,
) -> dict[str, Samples]:
    steps, samples = {}, {}
    for probe in probes:
        name = probe.program.name
        tell(f"timing {name}, a first time", float("nan"))
        first = seconds(lambda probe=probe, name=name: probe.run(programs[name], 1))
        steps[name] = 1 if first > SHORT_SECONDS else min(STEPS, probe.most)
        samples[name] = Samples(steps[name], (), ())
    began, spent, rounds = time.perf_counter(), 0.0, 0
    while rounds < LEAST_ROUNDS or (rounds < MOST_ROUNDS and spent < _allowed(samples, whole)):
        left = spent / rounds * max(1, LEAST_ROUNDS - rounds) if rounds else float("nan")
        names = ", ".join(samples)
        tell(f"timing {names}: round {rounds + 1} of {LEAST_ROUNDS} to {MOST_ROUNDS}", left)
        for probe in probes:
            name = probe.program.name
            at, (count, empty, full) = programs[name], samples[name]
            without = seconds(lambda probe=probe, at=at: probe.run(at, 0))
            some = seconds(lambda probe=probe, at=at, count=count: probe.run(at, count))
            samples[name] = Samples(count, (*empty, without), (*full, some))
        rounds, spent = rounds + 1, time.perf_counter() - began
    return samples


def _allowed(samples: Mapping[str, Samples], whole: Callable[[Lines], float]) -> float:
    """Seconds that timing may take."""
    return max(LEAST_SECONDS, SHARE * whole(summary(samples).best))


def seconds(run: Callable[[], Any]) -> float:
    """Of a run."""
    began = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - began
