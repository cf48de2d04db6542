"""Bytes at the peak of a hypergradient."""

import math
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import jax
import numpy as np
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec

from metatune.hypergrad.hosts import host_bytes
from metatune.hypergrad.stores import free_memory
from metatune.models import rows_at_a_time
from metatune.models.layout import TENSOR_AXIS
from metatune.plan.work import Work

DEVICES_OF_A_HOST: Final = 8
"""Of a mesh that isn't here, at most: as hosts of GPUs have, and most of TPUs."""
LOGITS: Final = 2  # arrays: values and tangents, or values and gradients


class Memory(NamedTuple):
    """Bytes at the peak of a hypergradient.

    Attributes:
        state: on the device: parameters, optimizer state and adjoint, of all copies alive, and
            frozen parameters.
        carry: on the device: states and gradients that wait for the backward sweep; of forward
            mode, the tangents.
        activations: on the device: temporary arrays of the larger program, without logits.
        logits: on the device: those of the loss.
        host: in the memory of each host, beside its devices': of all devices of a process.
        disk: on the disk of each host, likewise.
        recomputed_segments: segments run again for want of a kept state.
    """

    state: int
    carry: int
    activations: int
    logits: int
    host: int
    disk: int
    recomputed_segments: int

    @property
    def device(self) -> int:
        """On the device in all."""
        return self.state + self.carry + self.activations + self.logits

    @property
    def with_host(self) -> int:
        """On the device in all, with its share of what lies in the memory of its host."""
        return self.device + self.host // jax.local_device_count()


def limit_bytes() -> int:
    """Bytes that a device may use; where that is the machine, its share of the free memory."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"]
    return free_memory() // jax.local_device_count()


def host_bytes_of(tree: Any) -> int:
    """Bytes that a host keeps of arrays, given as shapes with their places: each part once.

    A host has the devices of one process; of a mesh that isn't here `DEVICES_OF_A_HOST`, its first.
    """
    total = 0
    for leaf in jax.tree.leaves(tree):
        place = leaf.sharding
        if not isinstance(place, NamedSharding) or not isinstance(place.mesh, AbstractMesh):
            total += host_bytes(leaf)
            continue
        sizes = place.mesh.axis_sizes
        of_host = np.indices(sizes).reshape(len(sizes), -1)[:, :DEVICES_OF_A_HOST]
        cut = [place.mesh.axis_names.index(axis) for axis in _axes(place.spec)]
        parts = len(set(map(tuple, of_host[cut].T.tolist())))
        total += parts * math.prod(place.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    return total


def _axes(spec: PartitionSpec) -> Iterator[str]:
    """The axes of a mesh that something is cut over."""
    for entry in spec:
        if entry is not None:
            yield from (entry,) if isinstance(entry, str) else entry


def logits_bytes(work: Work, times: int = 1) -> int:
    """Bytes of the logits that a device holds at a time, of so many trainings or directions."""
    recipe, model = work.recipe, work.training.model
    sequences = recipe.inner.micro_batch or recipe.data.batch_size
    tokens = sequences * (recipe.data.sequence_length - 1)
    vocab, layout = model.config.vocab_size, model.layout
    if layout is not None:
        tokens //= layout.parts
    rows = rows_at_a_time(model.loss_chunk, rows=tokens, columns=vocab) or tokens
    columns = vocab if layout is None else vocab // layout.mesh.shape[TENSOR_AXIS]
    return times * LOGITS * rows * columns * 4
