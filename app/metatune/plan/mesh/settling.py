"""The mesh of a recipe that leaves it open: `fsdp` where one device is too small, else `data`."""

from collections.abc import Iterator
from dataclasses import replace
from math import gcd
from pathlib import Path
from typing import Final, NamedTuple

import jax

from metatune.hypergrad.hosts import least_of_all, said_by_all
from metatune.hypergrad.reverse.budget import amount
from metatune.inner import InnerTraining, devices, prepare
from metatune.plan.cost_model import NotPredicted
from metatune.plan.memory import limit_bytes
from metatune.plan.mesh.axes import named
from metatune.plan.mesh.bound import most_bytes
from metatune.plan.mesh.planning import MeshPlan, on_mesh, states_bytes
from metatune.plan.over_sizes import largest
from metatune.plan.phases import each_alone
from metatune.plan.progress import Listener, silent
from metatune.recipe import schema
from metatune.recipe.batch_sizes import held_out_batches, training_batch

OPEN: Final = "auto"


class Settled(NamedTuple):
    """A training on the devices that it takes.

    Attributes:
        training: whose recipe names them, where one device is too small; else as it was.
        why: in a sentence; empty where there was nothing to choose.
    """

    training: InnerTraining
    why: str = ""


def settled(
    training: InnerTraining,
    *,
    folder: Path,
    before: schema.DevicesSpec | None = None,
    listener: Listener = silent,
) -> Settled:
    """The training on the smallest `fsdp` that fits, the rest of the devices as `data`.

    What one device takes is compiled ahead of time, unless a cheap bound says that it is plainly
    large enough. Of several processes all have to ask; they choose the same.

    Args:
        training: prepared for the devices that there are.
        folder: where the run would keep checkpoints on disk.
        before: the mesh of the run that goes on, which stays where there are devices for it.
        listener: is told what is compiled.
    """
    recipe = training.recipe
    if recipe.devices != OPEN or recipe.trainer is not None or jax.device_count() == 1:
        return Settled(training)
    meshes = tuple(meshes_of(training))
    if before in meshes:
        return Settled(_on(training, before), f"devices: {named(before)}, as when the run began")
    limit = limit_bytes()
    if jax.process_count() > 1:
        limit = least_of_all(limit)
    if all(most_bytes(largest(alone), limit) <= limit for alone in each_alone(training)):
        return Settled(training)
    base = devices.resolved(recipe)
    try:
        number, needed = _first_that_fits(training, (base, *meshes), limit, folder, listener)
    except NotPredicted as error:
        why = f"devices: {named(base)}; whether a device has room isn't known ({error})"
        return Settled(training, why)
    if jax.process_count() > 1:
        number = max(said_by_all(number))
    whole = f"{named(base)} would take {needed[0]} of the {amount(limit)} of each"
    if number == 0:
        return Settled(training)
    if number <= len(meshes):
        mesh = meshes[number - 1]
        return Settled(_on(training, mesh), f"devices: {named(mesh)}; {whole}")
    if not meshes:
        why = "no fsdp divides batches, width and devices"
        return Settled(training, f"devices: {named(base)}, which is too small, as {why}; {whole}")
    mesh = meshes[-1]
    return Settled(
        _on(training, mesh),
        f"devices: {named(mesh)}, which is too small, but the largest there is; it would take "
        f"{needed[-1]}; {whole} (`metatune plan --devices auto` looks for one that fits)",
    )


def meshes_of(training: InnerTraining) -> Iterator[schema.DevicesSpec]:
    """Meshes of the devices that there are, by how many parts of `fsdp`, the rest as `data`.

    Args:
        training: prepared for these devices.
    """
    recipe, count = training.recipe, jax.device_count()
    sizes = [training_batch(recipe.data, recipe.inner)[1], *held_out_batches(recipe.outer).values()]
    for fsdp in range(2, count + 1):
        if count % fsdp or any(size % fsdp for size in sizes):
            continue
        mesh = schema.DevicesSpec(gcd(count // fsdp, *(size // fsdp for size in sizes)), fsdp)
        idle = jax.process_count() > 1 and mesh.count < count
        if not idle and not tuple(devices.faults(mesh, training.model)):
            yield mesh


def _first_that_fits(
    training: InnerTraining,
    meshes: tuple[schema.DevicesSpec, ...],
    limit: int,
    folder: Path,
    listener: Listener,
) -> tuple[int, list[str]]:
    """Which mesh is the first that fits, one past the last for none, and what each takes."""
    needed = list[str]()
    for number, mesh in enumerate(meshes):
        there = prepare(replace(training.recipe, devices=mesh), elsewhere=True)
        alone = tuple(each_alone(there))
        states = max(map(states_bytes, alone))
        if states > limit:  # whatever its programs take: none is compiled
            needed.append(f"{amount(states)} for states and adjoint alone")
            continue
        given = {"folder": folder, "listener": listener, "limit": limit}
        plans = [on_mesh(each, None, **given) for each in alone]
        worst = max(plans, key=_bytes)
        needed.append(worst.problem or amount(int(_bytes(worst))))
        if _bytes(worst) <= limit:
            return number, needed
    return len(meshes), needed


def _bytes(plan: MeshPlan) -> float:
    """Bytes of each device; with its share of host memory, where that is the device's."""
    if plan.memory is None:
        return float("inf")
    if jax.local_devices()[0].memory_stats():
        return plan.memory.device
    return plan.memory.device + plan.memory.host // plan.devices_of_a_host


def _on(training: InnerTraining, mesh: schema.DevicesSpec) -> InnerTraining:
    return prepare(replace(training.recipe, devices=mesh))
