"""What a training takes of each device of a mesh."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from metatune.hypergrad import CheckpointError, shortened
from metatune.hypergrad.stores import device_bytes
from metatune.inner import InnerTraining, devices, estimators
from metatune.plan.cost import Cost, Seconds
from metatune.plan.cost_model import COSTS, NotPredicted, add_members, repeats
from metatune.plan.memory import DEVICES_OF_A_HOST, Memory, limit_bytes
from metatune.plan.mesh.accelerators import UTILISATION, Accelerator
from metatune.plan.mesh.axes import named
from metatune.plan.mesh.programs import MeshProgram, compiled
from metatune.plan.mesh.work_in_hlo import Traffic
from metatune.plan.over_sizes import at_size, largest, over_sizes
from metatune.plan.pace import Pace, pace
from metatune.plan.progress import Listener, Tell, silent, told
from metatune.plan.reverse_mode import (
    OfReverse,
    Sizes,
    Spec,
    memory,
    saved_by,
    seconds_of,
    traced,
    work_of,
)
from metatune.plan.timing import Line, Lines
from metatune.plan.work import Work, horizon
from metatune.recipe import schema
from metatune.transfer.sized import Sized, sizes

NOTHING: Final = Traffic(0, 0)
UNLIMITED: Final = 2**62
"""Bytes of host memory and disks that aren't here: as many as it takes."""


class MeshPlan(NamedTuple):
    """What a training takes of each device of a mesh.

    Attributes:
        devices: the mesh.
        spec: the estimator.
        memory: bytes of each device; of host memory and disk, of each host, which has
            `DEVICES_OF_A_HOST` at most. None where no checkpoints fit the budget.
        limit_bytes: that arrays may take of a device.
        device: what it is.
        flops: of a hypergradient, on each device.
        moved: for a hypergradient, by kinds of collectives.
        pace: seconds, where the device is known by name; none of them is measured.
        problem: why it can't be run; empty if it can.
    """

    devices: schema.DevicesSpec
    spec: schema.EstimatorSpec
    memory: Memory | None
    limit_bytes: int
    device: str
    flops: float = 0.0
    moved: Mapping[str, Traffic] = MappingProxyType({})
    pace: Pace | None = None
    problem: str = ""

    @property
    def devices_of_a_host(self) -> int:
        """Of the mesh, that bytes of host memory and disk are of."""
        return min(self.devices.count, DEVICES_OF_A_HOST)

    @property
    def fits(self) -> bool:
        """Whether each device has room."""
        return self.memory is not None and self.memory.device <= self.limit_bytes


def on_mesh(
    training: InnerTraining,
    device: Accelerator | None,
    *,
    folder: Path,
    listener: Listener = silent,
    limit: int | None = None,
) -> MeshPlan:
    """What a training takes of each device of its recipe's mesh.

    Of an estimator that the recipe leaves open it is the first way that fits, or else the last.

    Args:
        training: prepared for devices that needn't be here.
        device: what each is; None for one like this machine's, of which no seconds are known.
        folder: where the run would keep checkpoints on disk.
        listener: is told what is compiled.
        limit: bytes that arrays may take of each; by default those of `device`.

    Raises:
        NotPredicted: what the recipe's estimator takes of a mesh isn't known.
    """
    tell = told(listener, named(devices.resolved(training.recipe)))
    limit = limit_of(device) if limit is None else limit
    *others, last = ways(training)
    for spec in others:
        found = _planned(training, spec, device, limit, folder, tell)
        if found.fits:
            return found
    return _planned(training, last, device, limit, folder, tell)


def ways(training: InnerTraining) -> tuple[schema.EstimatorSpec, ...]:
    """The estimators that a recipe leaves open, the fastest first.

    Raises:
        NotPredicted: what the recipe's takes of a mesh isn't known.
    """
    recipe = training.recipe
    spec = recipe.outer.estimator
    if recipe.trainer is not None:
        raise NotPredicted("trainer: what it takes of a mesh isn't predicted; leave it out")
    if isinstance(spec, schema.AutoSpec):
        if recipe.outer.objective.measure != "loss":
            raise NotPredicted(
                "outer.estimator.kind = auto: of an objective that isn't the loss what fits a mesh "
                "isn't looked for; choose an estimator"
            )
        mixflow = schema.MixFlowSpec(segment=spec.segment, checkpoints=spec.checkpoints)
        return mixflow, replace(mixflow, save_gradients=False)
    return (spec,)


def limit_of(device: Accelerator | None) -> int:
    """Bytes that arrays may take of a device; of None, of this machine's."""
    return limit_bytes() if device is None else device.limit_bytes


def states_bytes(training: InnerTraining) -> int:
    """Bytes of each device that a hypergradient takes at least: states, and an adjoint if any.

    Of several sizes those of the largest.
    """
    training = largest(training)
    spec = ways(training)[0]
    if not isinstance(spec, Spec):
        return device_bytes(training.shapes())
    on_host = schema.MixFlowSpec(checkpoints=schema.CheckpointsSpec(keep="all", store="host"))
    kept = estimators.checkpoints(on_host, Path())
    return memory(work_of(training, spec), Sizes(0, 0, 0, 0, 0), kept).state


class _Needs(NamedTuple):
    """Of a hypergradient on a mesh.

    Attributes:
        work: the training and its estimator.
        programs: compiled for it.
        memory: as of `MeshPlan`.
        seconds: given the lines of its programs; what is counted in them may be something else.
    """

    work: Work
    programs: Mapping[str, MeshProgram]
    memory: Memory
    seconds: Callable[[Lines], Seconds]


def _planned(
    training: InnerTraining,
    spec: schema.EstimatorSpec,
    device: Accelerator | None,
    limit: int,
    folder: Path,
    tell: Tell,
) -> MeshPlan:
    outer = replace(training.recipe.outer, estimator=spec)
    training = replace(training, recipe=replace(training.recipe, outer=outer))
    mesh = devices.resolved(training.recipe)
    found = MeshPlan(mesh, spec, None, limit, device.name if device else "as this machine's")
    several = sizes(training)
    try:
        each = [_needed(one.training, spec, mesh, limit, folder, tell) for one in several]
    except CheckpointError as error:
        return found._replace(problem=str(error))
    needs = each[0] if len(each) == 1 else _of_all(training, spec, several, each)
    work, programs = needs.work, needs.programs

    def seconds(of_program: Mapping[str, float]) -> Seconds:
        best = needs.seconds(_lines(work, of_program))
        return best._replace(hypergradient=repeats(training) * best.hypergradient)

    def sent(kind: str) -> Traffic:
        each = {name: program.work.moved.get(kind, NOTHING) for name, program in programs.items()}
        arrays = seconds({name: traffic.arrays for name, traffic in each.items()}).hypergradient
        amount = seconds({name: traffic.bytes for name, traffic in each.items()}).hypergradient
        return Traffic(round(arrays), round(amount))

    kinds = {kind for program in programs.values() for kind in program.work.moved}
    found = found._replace(
        memory=add_members(training, needs.memory),
        flops=seconds({name: each.work.flops for name, each in programs.items()}).hypergradient,
        moved={kind: sent(kind) for kind in sorted(kinds)},
    )
    if device is None:
        return found
    speed = UTILISATION * device.flops[training.recipe.model.dtype]
    # As if nothing were computed while arrays are on their way.
    best = seconds(
        {
            name: each.work.flops / speed + each.work.moved_bytes / device.link_bytes
            for name, each in programs.items()
        }
    )
    return found._replace(pace=pace(work, best, (), 0.0))


def _needed(
    training: InnerTraining,
    spec: schema.EstimatorSpec,
    mesh: schema.DevicesSpec,
    limit: int,
    folder: Path,
    tell: Tell,
) -> _Needs:
    """Of a training of one size; raises `CheckpointError` where nothing fits the budget."""
    if isinstance(spec, Spec):
        return _of_reverse(training, spec, limit, folder, tell)
    return _of_others(training, spec, mesh.count, folder, tell)


def _of_all(
    training: InnerTraining,
    spec: schema.EstimatorSpec,
    several: Sequence[Sized],
    each: Sequence[_Needs],
) -> _Needs:
    """Of trainings of several sizes, one of each, one after the other."""
    costs = [Cost(needs.memory, 0.0, tuple, needs.seconds) for needs in each]
    found = over_sizes(several, costs, seeds=1)  # `repeats` counts them
    programs = {
        at_size(name, one): program
        for one, needs in zip(several, each, strict=True)
        for name, program in needs.programs.items()
    }
    estimator = shortened(estimators.build(spec), horizon(training.recipe).window)
    return _Needs(Work(training, estimator), programs, found.memory, found.seconds)


def _of_reverse(
    training: InnerTraining, spec: Spec, limit: int, folder: Path, tell: Tell
) -> _Needs:
    """By reverse mode; raises `CheckpointError` where nothing fits the budget."""
    work, checkpoints = work_of(training, spec), estimators.checkpoints(spec, folder)
    free = limit if checkpoints.store == "device" else UNLIMITED
    programs = compiled(traced(work), devices.resolved(training.recipe).count, tell)
    needed = memory(work, _sizes(work, programs), checkpoints, lambda: free)
    return _Needs(work, programs, needed, partial(seconds_of, work, needed.recomputed_segments))


def _of_others(
    training: InnerTraining, spec: schema.EstimatorSpec, count: int, folder: Path, tell: Tell
) -> _Needs:
    """By any other estimator, of so many devices."""
    # What is free here says nothing of there: the plan says whether it fits.
    if isinstance(spec, schema.ForwardSpec | schema.ForwardGradientSpec):
        spec = replace(spec, budget_bytes=spec.budget_bytes or UNLIMITED)
    programs = dict[str, MeshProgram]()

    def analyse(trace: Mapping[str, Callable[[], Any]], tell: Tell) -> dict[str, MeshProgram]:
        programs.update(compiled(trace, count, tell))
        return programs

    cost = COSTS[type(spec)](training, spec, folder, tell, analyse)
    estimator = shortened(estimators.build(spec), horizon(training.recipe).window)
    return _Needs(Work(training, estimator), programs, cost.memory, cost.seconds)


def _lines(work: Work, of_segment: Mapping[str, float]) -> Lines:
    """What programs take of a whole segment, as that of its steps."""
    length = work.estimator.segment
    return {name: Line(0.0, amount / length) for name, amount in of_segment.items()}


def _sizes(work: OfReverse, programs: Mapping[str, MeshProgram]) -> Sizes:
    saved = device_bytes(saved_by(work, work.estimator))
    temporary = {name: program.temporary for name, program in programs.items()}
    return Sizes(**temporary, saved=saved, gradients=saved)
