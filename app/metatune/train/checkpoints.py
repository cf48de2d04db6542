"""Checkpoints of a training, with Orbax: all that is needed to go on bit for bit."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import orbax.checkpoint as ocp

from metatune.hypergrad import State
from metatune.runs import checkpoints


class Position(NamedTuple):
    """Where a training stands: what a checkpoint holds; data is a function of the step.

    Attributes:
        step: updates done.
        state: parameters and optimizer state.
        seconds: that the training has taken, in all processes.
    """

    step: int
    state: State
    seconds: float = 0.0


class TrainingCheckpoints:
    """The checkpoints of one training; the newest are kept."""

    def __init__(self, folder: Path, keep: int, saved: Callable[[], object] = lambda: None):
        """Opens `folder`, makes it if needed, and keeps so many in it.

        Args:
            folder: theirs.
            keep: how many stay.
            saved: is called whenever there is a checkpoint.
        """
        self._saved = saved
        self._kept = checkpoints.RunCheckpoints(folder, ("state", "numbers"), keep)

    def __enter__(self) -> "TrainingCheckpoints":
        """Returns itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the folder."""
        self._kept.close()

    def save(self, position: Position) -> None:
        """Writes a checkpoint, all of it or nothing; none where there is one of the same step.

        Raises:
            DiskFull: there is no room.
        """
        self._kept.save(
            position.step,
            state=ocp.args.StandardSave(
                jax.tree.map(checkpoints.savable, position.state._asdict())
            ),
            numbers=ocp.args.JsonSave({"seconds": position.seconds}),
        )
        self._saved()

    def latest(self, like: State, say: Callable[[str], None] = print) -> Position | None:
        """The newest checkpoint that is whole; `None` if there is none at all.

        Args:
            like: shapes and types of a state, and where it lies on several devices.
            say: is told of damaged ones.

        Raises:
            RunFolderError: all are damaged.
        """
        found = self._kept.latest(partial(self._read, like), say)
        if found is not None:
            self._saved()
        return found

    def _read(self, like: State, step: int) -> Position:
        numbers = self._kept.restored(step, numbers=ocp.args.JsonRestore())
        here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        wanted = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(
                leaf.shape, leaf.dtype, sharding=leaf.sharding or here
            ),
            like._asdict(),
        )
        held = self._kept.restored(step, state=ocp.args.StandardRestore(wanted))
        state = jax.tree.map(checkpoints.unbound, held)
        return Position(step, State(**state), numbers["seconds"])
