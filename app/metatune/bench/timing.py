"""Times that can be compared: taken in turn, so that a slow moment of the machine hits all."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax

from metatune.bench.memory import CompiledProgram
from metatune.bench.sizes import Shape
from metatune.bench.workload import initial

UNIT = "plain step"
SYSTEM_MEMORY = Path("/proc/meminfo")


def seconds(
    shape: Shape, unit: CompiledProgram, programs: Mapping[str, CompiledProgram], rounds: int
) -> dict[str, float]:
    """The least time of each, over some rounds in which each has a turn.

    Args:
        shape: what the programs were compiled for.
        unit: the plain training step.
        programs: hypergradients by name.
        rounds: turns of each, besides a first one that isn't timed.

    Returns:
        Seconds of a hypergradient by name, and of one plain step under `UNIT`.
    """
    given = jax.jit(partial(initial, shape))(jax.random.key(0))
    turns: dict[str, Callable[[], Any]] = {UNIT: _training(shape, unit, given)}
    turns |= {name: partial(program.run, *given) for name, program in programs.items()}
    best = dict.fromkeys(turns, float("inf"))
    for lap in range(rounds + 1):
        for name, turn in turns.items():
            began = time.perf_counter()
            jax.block_until_ready(turn())
            took = time.perf_counter() - began
            best[name] = min(best[name], took) if lap else best[name]
    return best | {UNIT: best[UNIT] / shape.steps}


def _training(shape: Shape, unit: CompiledProgram, given: Any) -> Callable[[], Any]:
    """As many plain steps as the horizon has; the next turn goes on where this one ended."""
    eta, state, tokens, _ = given
    # The unit's state is donated, the hypergradients' must stay.
    held = [jax.tree.map(jax.numpy.copy, state)]
    batches = [tokens[step] for step in range(shape.steps)]

    def run() -> Any:
        for batch in batches:
            held[0] = unit.run(eta, held[0], batch)
        return held[0]

    return run


def free_bytes() -> int | None:
    """Memory that programs may have: the device's where it tells, else the system's, if known."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    if not SYSTEM_MEMORY.exists():
        return None
    lines = dict(line.split(":") for line in SYSTEM_MEMORY.read_text().splitlines())
    return int(lines["MemAvailable"].split()[0]) * 1024


def device_peak_bytes() -> int | None:
    """The most that was ever in use on the device since the process began, where it tells."""
    stats = jax.local_devices()[0].memory_stats()
    return stats.get("peak_bytes_in_use") if stats else None
