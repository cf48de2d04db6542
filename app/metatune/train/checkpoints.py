"""Checkpoints of a training, with Orbax: all that is needed to go on bit for bit."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from metatune.hypergrad import State


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


class Checkpoints:
    """The checkpoints of one training; the newest are kept."""

    def __init__(self, folder: Path, keep: int):
        """Opens `folder`, makes it if needed, and keeps so many in it."""
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager(
            folder.absolute(), options=options, item_names=("state", "numbers")
        )

    def __enter__(self) -> "Checkpoints":
        """Returns itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the folder."""
        self._manager.close()

    def save(self, position: Position) -> None:
        """Writes a checkpoint, all of it or nothing; none where there is one of the same step."""
        if self._manager.latest_step() == position.step:
            return
        self._manager.save(
            position.step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(position.state._asdict()),
                numbers=ocp.args.JsonSave({"seconds": position.seconds}),
            ),
        )

    def latest(self, like: State) -> Position | None:
        """The newest checkpoint; `None` if there is none.

        Args:
            like: shapes and types of a state.
        """
        step = self._manager.latest_step()
        if step is None:
            return None
        numbers = self._restored(step, numbers=ocp.args.JsonRestore())
        here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        wanted = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here),
            like._asdict(),
        )
        held = self._restored(step, state=ocp.args.StandardRestore(wanted))
        # Orbax ties arrays to their device, and programs for such arrays are compiled anew; a copy,
        # because the training takes the memory of its state.
        state = jax.tree.map(lambda leaf: jnp.array(np.asarray(leaf)), held)
        return Position(step, State(**state), numbers["seconds"])

    def _restored(self, step: int, **item: ocp.args.CheckpointArgs) -> Any:
        """One item of a checkpoint."""
        (name,) = item
        return self._manager.restore(step, args=ocp.args.Composite(**item))[name]
