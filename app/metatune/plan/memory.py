"""Bytes of a hypergradient: from the shapes of its arrays and the analysis of its programs."""

import shutil
from collections.abc import Callable
from math import ceil
from pathlib import Path
from typing import Any, Final, NamedTuple

import jax

from metatune.hypergrad import Checkpoints, budget
from metatune.hypergrad.stores import Device, free_memory, tree_bytes
from metatune.models import rows_at_a_time
from metatune.plan.work import Compiled, Work, horizon

LOGITS: Final = 2  # arrays: values and tangents, or values and gradients


class Memory(NamedTuple):
    """Bytes at the peak of a hypergradient.

    Attributes:
        state: on the device: parameters, optimizer state and adjoint, of all copies alive, and
            frozen parameters.
        carry: on the device: states and gradients that wait for the backward sweep.
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


def memory(work: Work, compiled: Compiled, checkpoints: Checkpoints) -> Memory:
    """Predicts the bytes of an outer step.

    Args:
        work: the training and its estimator.
        compiled: its programs.
        checkpoints: what is kept between the sweeps.

    Raises:
        CheckpointError: nothing fits the budget of the checkpoints.
    """
    state, adjoint = tree_bytes(work.state()), tree_bytes(work.adjoint())
    saved = compiled.saved_bytes
    segments = ceil(horizon(work.recipe).window / work.estimator.segment)
    kept = checkpoints.plan(segments, lambda: (state, saved), _free(checkpoints))
    cost = budget.cost(kept, segments, state, saved)
    on_device = checkpoints.store == "device"
    # The first state is the caller's; where it is kept on the device, it is the same array.
    carry = cost.peak_bytes if on_device else 0
    first = 0 if on_device and segments > 1 else state
    forward, pullback, objective = (
        _temporary(program) for program in (compiled.forward, compiled.pullback, compiled.objective)
    )
    # What is alive beside kept states and temporary arrays, and what the program needs.
    phases = [
        (first + 2 * state, saved + forward),  # the last segment: a state in, a state out
        (first + 2 * state + adjoint, saved + objective),  # the last state, that in hand
        (first + 2 * state + adjoint, saved + pullback),
    ]
    if cost.recomputed_segments:
        phases.append((first + 3 * state + adjoint, saved + forward))
    states, temporary = max(phases, key=sum)
    logits = min(_logits_bytes(work), temporary)
    return Memory(
        states + tree_bytes(work.training.frozen),
        carry,
        temporary - logits,
        logits,
        cost.peak_bytes if checkpoints.store == "host" else 0,
        cost.peak_bytes if checkpoints.store == "disk" else 0,
        cost.recomputed_segments,
    )


def limit_bytes() -> int:
    """Bytes that the device may use; the free memory of the machine where that is the device."""
    stats = jax.local_devices()[0].memory_stats()
    return stats["bytes_limit"] if stats and "bytes_limit" in stats else free_memory()


def _free(checkpoints: Checkpoints) -> Callable[[], int]:
    """What is free where states are kept."""
    if checkpoints.folder is not None:
        return lambda: shutil.disk_usage(_existing(checkpoints.folder or Path())).free
    return Device().free_bytes if checkpoints.store == "device" else free_memory


def _existing(folder: Path) -> Path:
    """The folder, or the first one above it that is there."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())


def _temporary(program: Any) -> int:
    return program.memory_analysis().temp_size_in_bytes


def _logits_bytes(work: Work) -> int:
    """Of the logits that exist at a time."""
    recipe, model = work.recipe, work.training.model
    sequences = recipe.inner.micro_batch or recipe.data.batch_size
    tokens = sequences * (recipe.data.sequence_length - 1)
    vocab = model.config.vocab_size
    rows = rows_at_a_time(model.loss_chunk, rows=tokens, columns=vocab) or tokens
    return LOGITS * rows * vocab * 4
