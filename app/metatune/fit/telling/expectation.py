"""What a run was expected to take, against what it took."""

import resource
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from metatune.fit.telling.remaining import Taken, pace

MIB = 2**20
STATUS = Path("/proc/self/status")


class Expectation(NamedTuple):
    """What a plan said.

    Attributes:
        device_bytes: at the peak of a hypergradient.
        outer_step_seconds: of an outer step, judging shared out.
        run_seconds: of the whole run.
        held_bytes: that the process holds before it begins, where arrays lie in its memory: of
            libraries, the compiler, and programs; 0 where the device has a memory of its own.
    """

    device_bytes: int
    outer_step_seconds: float
    run_seconds: float
    held_bytes: int = 0

    @property
    def sentence(self) -> str:
        """What to tell."""
        beside = f"beside {self.held_bytes / MIB:,.0f} MiB of the process, " * bool(self.held_bytes)
        return (
            f"expected: {self.device_bytes / MIB:,.0f} MiB of arrays on the device, {beside}"
            f"{self.outer_step_seconds:.1f} s per outer step, {self.run_seconds:,.0f} s in all"
        )


def measured(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What was measured.

    Args:
        lines: the metrics of the outer steps of this process; the first, and that of each further
            phase and horizon, which compile, are left out if there are others.

    Returns:
        `outer_step_seconds` in the mean, by what an inner step took; `device_bytes` at the peak,
        or, where the device doesn't count them, `process_bytes`, with libraries, the compiler, and
        what was freed but kept.
    """
    taken = [Taken(line["inner_steps"], line["seconds"], line["phase"]) for line in lines]
    took: dict[str, float] = {}
    if taken:
        mean = statistics.fmean(each.inner_steps for each in taken)
        took["outer_step_seconds"] = pace(taken) * mean
    stats = jax.local_devices()[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return {**took, "device_bytes": stats["peak_bytes_in_use"]}
    unit = 1 if sys.platform == "darwin" else 1024
    return {**took, "process_bytes": unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}


def held_bytes() -> int:
    """Bytes that the process holds, where arrays lie in its memory and Linux tells; 0 elsewhere."""
    if jax.local_devices()[0].memory_stats() or not STATUS.exists():
        return 0
    (line,) = (x for x in STATUS.read_text().splitlines() if x.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def comparison(expected: Expectation, found: Mapping[str, Any]) -> str:
    """Both in a line."""
    parts = []
    if "outer_step_seconds" in found:
        parts.append(
            f"{found['outer_step_seconds']:.1f} s per outer step "
            f"(expected {expected.outer_step_seconds:.1f} s)"
        )
    if "device_bytes" in found:
        parts.append(
            f"{found['device_bytes'] / MIB:,.0f} MiB at the peak "
            f"(expected {expected.device_bytes / MIB:,.0f} MiB)"
        )
    else:
        parts.append(
            f"the process peaked at {found['process_bytes'] / MIB:,.0f} MiB, freed memory that is "
            f"kept included (expected {(expected.device_bytes + expected.held_bytes) / MIB:,.0f} "
            f"MiB, {expected.device_bytes / MIB:,.0f} of them arrays)"
        )
    return "measured: " + "; ".join(parts)
