"""The programs of a hypergradient, compiled for devices that aren't here.

XLA compiles for as many devices as a program's mesh has; that the one CPU of this process is named
for all of them makes no difference to what is analysed: memory, products and collectives are those
of a device of the mesh.
"""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from metatune.plan import cache
from metatune.plan.mesh.work_in_hlo import ProgramWork, Traffic, work_in
from metatune.plan.progress import Tell


class MeshProgram(NamedTuple):
    """A program compiled for a mesh, of each device.

    Attributes:
        arguments: bytes of what it is given.
        outputs: bytes of what it returns.
        temporary: bytes of its temporary arrays.
        work: what it does.
        compilation: seconds that compiling it took here.
    """

    arguments: int
    outputs: int
    temporary: int
    work: ProgramWork
    compilation: float


def compiled(
    trace: Mapping[str, Callable[[], Any]], devices: int, tell: Tell
) -> dict[str, MeshProgram]:
    """Programs, by what they do.

    Args:
        trace: traces each, for a mesh of devices that needn't be here.
        devices: of the mesh.
        tell: is told which is compiled.
    """
    found = {}
    for name, make in trace.items():
        tell(
            f"compiling {name} for {'a device' if devices == 1 else f'{devices} devices'}", math.nan
        )
        found[name] = _compiled(make().lower(lowering_platforms=("cpu",)), devices)
    return found


def _compiled(lowered: Any, devices: int) -> MeshProgram:
    key = cache.key_of(lowered.as_text())
    if (known := cache.read(key)) and "on_mesh" in known:
        return _from_entry(known)
    began = time.perf_counter()
    program = lowered.compile(device_assignment=(_a_cpu(),) * devices)
    seconds = time.perf_counter() - began
    analysis = program.memory_analysis()
    found = MeshProgram(
        analysis.argument_size_in_bytes,
        analysis.output_size_in_bytes,
        analysis.temp_size_in_bytes,
        work_in(program.as_text()),
        seconds,
    )
    cache.write(key, cache.read(key) | _as_entry(found))
    return found


def _a_cpu() -> Any:
    """A CPU of this process, beside whatever else it computes on."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS leaves it out
        return jax.local_devices()[0]


def _as_entry(found: MeshProgram) -> dict[str, Any]:
    on_mesh = {
        "arguments": found.arguments,
        "outputs": found.outputs,
        "flops": found.work.flops,
        "moved": found.work.moved,
    }
    return {
        "temporary_bytes": found.temporary,
        "compilation_seconds": found.compilation,
        "on_mesh": on_mesh,
    }


def _from_entry(entry: Mapping[str, Any]) -> MeshProgram:
    known = entry["on_mesh"]
    moved = {kind: Traffic(*each) for kind, each in known["moved"].items()}
    return MeshProgram(
        known["arguments"],
        known["outputs"],
        entry["temporary_bytes"],
        ProgramWork(known["flops"], moved),
        entry["compilation_seconds"],
    )
