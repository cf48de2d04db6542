"""Rules on the devices that a training lies on."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Literal

from metatune.recipe.batch_sizes import held_out_batches, training_batch
from metatune.recipe.faults import Fault
from metatune.recipe.schema import DataSpec, DevicesSpec, InnerSpec, OuterSpec, TrainerSpec


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
