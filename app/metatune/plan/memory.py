"""Bytes at the peak of a hypergradient."""

from typing import Final, NamedTuple

import jax

from metatune.hypergrad.stores import free_memory
from metatune.models import rows_at_a_time
from metatune.models.layout import TENSOR_AXIS
from metatune.plan.work import Work

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
        host: in the memory of the host, beside the device's.
        disk: on disk.
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


def limit_bytes() -> int:
    """Bytes that the device may use; the free memory of the machine where that is the device."""
    stats = jax.local_devices()[0].memory_stats()
    return stats["bytes_limit"] if stats and "bytes_limit" in stats else free_memory()


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
