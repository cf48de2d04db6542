"""The programs of a hypergradient by reverse mode, compiled for devices that aren't here.

XLA compiles for as many devices as a program's mesh has; that the one CPU of this process is named
for all of them makes no difference to what is analysed: memory, products and collectives are those
of a device of the mesh.
"""

import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax

from metatune.hypergrad import programs
from metatune.plan import cache
from metatune.plan.mesh.work_in_hlo import ProgramWork, Traffic, work_in
from metatune.plan.progress import Tell
from metatune.plan.reverse_mode import OfReverse, adjoint_of, saved_by


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


def compiled(work: OfReverse, tell: Tell) -> dict[str, MeshProgram]:
    """The programs of a hypergradient, by what they do.

    Args:
        work: a training on a mesh, or on one device, and its estimator.
        tell: is told which is compiled.
    """
    layout, found = work.training.layout, {}
    devices = 1 if layout is None else layout.mesh.size
    for name, lower in lowering(work).items():
        tell(
            f"compiling {name} for {'a device' if devices == 1 else f'{devices} devices'}", math.nan
        )
        found[name] = _compiled(lower(), devices)
    return found


def lowering(work: OfReverse) -> dict[str, Callable[[], Any]]:
    """What lowers each program of a hypergradient for CPUs, by what it does."""
    estimator, problem = work.estimator, _problem(work)
    eta, segment = _shapes(work.eta()), _shapes(work.segment(1))
    held_out = _shapes(work.held_out(work.recipe.outer.objective.sequences)[0])
    state, adjoint = work.state(), adjoint_of(work)._replace(eta=eta)
    taken = (state, saved_by(work, estimator))
    given = {
        "forward": (programs.forward, (problem, estimator, eta, state, segment)),
        "pullback": (programs.pullback, (problem, estimator, eta, segment, taken, adjoint)),
        "objective": (programs.objective, (problem, state.params, held_out)),
    }

    def lowered(program: Any, arguments: tuple[Any, ...]) -> Any:
        return program.trace(*arguments).lower(lowering_platforms=("cpu",))

    return {name: partial(lowered, *each) for name, each in given.items()}


def _shapes(tree: Any) -> Any:
    """Arrays as shapes that lie wherever XLA wants them, as those do that a run has of its own."""
    return jax.eval_shape(lambda: tree)


def _problem(work: OfReverse) -> Any:
    """The problem, with what is frozen where it lies."""
    arrays = jax.tree.leaves(work.training.frozen)
    frozen = dict(zip(map(id, arrays), jax.tree.leaves(work.frozen()), strict=True))
    problem = work.problem
    return jax.tree.map(lambda leaf, shape: frozen.get(id(leaf), shape), problem, _shapes(problem))


def _compiled(lowered: Any, devices: int) -> MeshProgram:
    key = cache.key_of(lowered.as_text())
    if (known := cache.read(key)) and "on_mesh" in known:
        return _from_entry(known)
    began = time.perf_counter()
    program = lowered.compile(device_assignment=tuple(jax.devices()[:1] * devices))
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
