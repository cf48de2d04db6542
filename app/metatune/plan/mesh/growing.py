"""The smallest mesh that a training fits on: which axis is grown, and why."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

from metatune.hypergrad.reverse.budget import amount
from metatune.inner import InnerTraining, devices, prepare
from metatune.plan.mesh.accelerators import Accelerator
from metatune.plan.mesh.axes import named
from metatune.plan.mesh.planning import MeshPlan, limit_of, on_mesh, states_bytes
from metatune.plan.progress import Listener, silent
from metatune.recipe import schema
from metatune.recipe.checks.devices import batches_are_cut_evenly, held_out_batches_are_cut_evenly

MOST_DEVICES: Final = 1024
GROWN: Final = {
    "fsdp": "which cuts states, gradients and batches alike",
    "tensor": "which cuts heads, features and vocabulary, as fsdp divides no further",
}
"""The axes that are grown for room, in turn, and why. `data` isn't: it makes a run faster, and
leaves no less on a device than fsdp does."""


class Smallest(NamedTuple):
    """A search for the smallest mesh.

    Attributes:
        plan: of the mesh that was found; of the largest that there is, where none fits.
        why: it, in a sentence.
        tried: the meshes that are too small, each with what is too much.
    """

    plan: MeshPlan
    why: str
    tried: tuple[str, ...]


def smallest(
    training: InnerTraining,
    device: Accelerator | None,
    *,
    folder: Path,
    listener: Listener = silent,
) -> Smallest:
    """The first mesh that fits, from one device on, each twice as many as the one before.

    Those whose states alone are larger than a device aren't compiled.

    Args:
        training: prepared for devices that needn't be here, on any mesh.
        device: as of `on_mesh`.
        folder: as of `on_mesh`.
        listener: is told what is compiled.

    Raises:
        NotPredicted: what the recipe's estimator takes of a mesh isn't known.
    """
    tried, limit, left = list[str](), limit_of(device), _growing(training)
    axis, mesh = next(left)
    while True:
        candidate, larger = _on(training, mesh), next(left, None)
        states = states_bytes(candidate)
        if states > limit and larger:
            tried.append(f"{named(mesh)}: states and adjoint alone are {amount(states)}")
        else:
            found = on_mesh(candidate, device, folder=folder, listener=listener)
            if found.fits:
                return Smallest(found, _why(axis, mesh), tuple(tried))
            much = amount(found.memory.device) if found.memory else found.problem
            tried.append(f"{named(mesh)}: {much}")
            if larger is None:
                return Smallest(found, _none(mesh), tuple(tried))
        axis, mesh = larger


def _why(axis: str | None, mesh: schema.DevicesSpec) -> str:
    """Why a mesh is the one."""
    if axis is None:
        return "one device is enough"
    return f"{named(mesh)} is the smallest that fits; {axis} was grown, {GROWN[axis]}"


def _none(largest: schema.DevicesSpec) -> str:
    """That there is none, and what to do."""
    return (
        f"no mesh fits: {named(largest)} is the largest that divides model and batches; set "
        "model.remat=true, keep states on the host (outer.estimator.checkpoints.store=host), "
        "raise data.batch_size and the held-out ones for more parts, or take a larger device"
    )


def _growing(training: InnerTraining) -> Iterator[tuple[str | None, schema.DevicesSpec]]:
    """Meshes, each twice the one before, and the axis that was grown for it; None of the first."""
    mesh = schema.DevicesSpec()
    yield None, mesh
    for axis in GROWN:
        while True:
            grown = replace(mesh, **{axis: 2 * getattr(mesh, axis)})
            if grown.count > MOST_DEVICES or not _divides(training, grown):
                break
            mesh = grown
            yield axis, mesh


def _divides(training: InnerTraining, mesh: schema.DevicesSpec) -> bool:
    """Whether a mesh divides all that it cuts, as `fit` asks."""
    recipe = training.recipe
    faults = (
        *batches_are_cut_evenly(mesh, recipe.data, recipe.inner),
        *held_out_batches_are_cut_evenly(mesh, recipe.outer),
        *devices.faults(mesh, training.model, elsewhere=True),
    )
    return not faults


def _on(training: InnerTraining, mesh: schema.DevicesSpec) -> InnerTraining:
    """The training on another mesh."""
    if devices.resolved(training.recipe) == mesh:
        return training
    return prepare(replace(training.recipe, devices=mesh), elsewhere=True)
