"""Rules on the devices that a training lies on."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Literal

from metatune.recipe.batch_sizes import held_out_batches, training_batch
from metatune.recipe.faults import Fault
from metatune.recipe.phases import resolved
from metatune.recipe.schema import (
    DataSpec,
    DevicesSpec,
    ForwardGradientSpec,
    ForwardSpec,
    InnerSpec,
    OuterSpec,
    TrainerSpec,
)


def batches_are_cut_evenly(
    devices: DevicesSpec | Literal["auto"], data: DataSpec, inner: InnerSpec
) -> Iterable[Fault]:
    """Every device has as many sequences of a batch."""
    yield from _uneven(devices, *training_batch(data, inner))


def held_out_batches_are_cut_evenly(
    devices: DevicesSpec | Literal["auto"], outer: OuterSpec
) -> Iterable[Fault]:
    """Likewise of the batches that are measured on."""
    for path, sequences in held_out_batches(outer).items():
        yield from _uneven(devices, path, sequences)


def what_is_cut_over_members_is_there(
    devices: DevicesSpec | Literal["auto"], outer: OuterSpec
) -> Iterable[Fault]:
    """An axis of directions or members has as many of them on each of its parts.

    Meta-parameters of `forward` are as many as there are, and filled up.
    """
    if devices == "auto" or devices.members <= 1 or (outer.steps is None and not outer.phases):
        return
    parts, population = devices.members, outer.population
    if population is not None and population.vmap:
        counts = {"outer.population.members": population.members}
    else:
        counts = dict[str, int | None]()
        for phase in resolved(outer):
            path = "outer.estimator"
            if outer.phases and outer.phases[phase.number].estimator is not None:
                path = f"outer.phases.{phase.number}.estimator"
            match phase.estimator:
                case ForwardSpec(chunk=chunk):
                    counts[f"{path}.chunk"] = chunk
                case ForwardGradientSpec(directions=directions, chunk=chunk):
                    counts |= {f"{path}.directions": directions, f"{path}.chunk": chunk}
                case spec:
                    problem = (
                        f"cuts directions or members, and the estimator {spec.kind} of {path} has "
                        "none in one program"
                    )
                    cure = (
                        "leave it out, or choose forward or forward_gradient, or a population with "
                        "vmap: true"
                    )
                    yield Fault("devices.members", parts, problem, cure)
    for path, count in counts.items():
        if count is not None and count % parts:
            problem = f"doesn't divide {path}, {count}"
            yield Fault("devices.members", parts, problem, "change one of the two")


def what_trains_elsewhere_lies_elsewhere(
    devices: DevicesSpec | Literal["auto"], trainer: TrainerSpec
) -> Iterable[Fault]:
    """An external trainer chooses its devices itself."""
    if devices != "auto" and trainer:
        problem = "has no effect on what trainer.command trains"
        yield Fault("devices", asdict(devices), problem, "leave it out")


def _uneven(devices: DevicesSpec | Literal["auto"], path: str, sequences: int) -> Iterable[Fault]:
    # An axis of zero is told of by itself.
    if devices != "auto" and devices.parts > 0 and sequences % devices.parts:
        problem = (
            f"cuts a batch into data x fsdp = {devices.parts} parts, which don't divide {path}, "
            f"{sequences}"
        )
        yield Fault("devices", asdict(devices), problem, "change one of the two")
