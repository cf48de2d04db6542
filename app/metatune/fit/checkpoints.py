"""Checkpoints of the outer loop, with Orbax: all that is needed to go on bit for bit."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp


class Search(NamedTuple):
    """Where the search stands: what a checkpoint holds.

    Attributes:
        step: outer steps done.
        eta: meta-parameters for the next outer step.
        opt_state: state of the outer optimizer.
        best_eta: the best so far.
        best_step: outer steps that had led to it; -1 before the first judgement.
        best_held_out: what the judges measured there, in `recipe.measures.unit`.
        inner: state of the inner training that goes on from outer step to outer step; () of none.
        control: control variate of the next hypergradient; () of none.
        age: inner steps that it is old.
        life: which inner training it is.
        average: moving average of the meta-parameters of all outer steps; () of none.
        best_averaged: whether the best is such an average.
        phase: number of the phase.
        phase_start: outer steps done before it began.
        shared: which cells share a learning rate, and what was seen of them; () where none do.
        changes: of what is shared, from the first on, as plain JSON values.
    """

    step: int
    eta: Any
    opt_state: Any
    best_eta: Any
    best_step: int = -1
    best_held_out: float = float("inf")
    inner: Any = ()
    control: Any = ()
    age: int = 0
    life: int = 0
    average: Any = ()
    best_averaged: bool = False
    phase: int = 0
    phase_start: int = 0
    shared: Any = ()
    changes: Sequence[Mapping[str, Any]] = ()


class Checkpoints:
    """The checkpoints of one run; the newest two are kept."""

    def __init__(self, folder: Path):
        """Opens `folder`, and makes it if needed."""
        options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager(
            folder.absolute(), options=options, item_names=("arrays", "numbers")
        )

    def __enter__(self) -> "Checkpoints":
        """Returns itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the folder."""
        self._manager.close()

    def save(self, search: Search) -> None:
        """Writes a checkpoint; all of it or nothing."""
        arrays, numbers = _parted(search)
        self._manager.save(
            search.step,
            args=ocp.args.Composite(
                arrays=ocp.args.StandardSave(arrays), numbers=ocp.args.JsonSave(numbers)
            ),
        )

    def latest(self, like: Callable[[int], Search]) -> Search | None:
        """The newest checkpoint; `None` if there is none.

        Args:
            like: the number of a phase to a search with arrays of the shapes that it has there.
        """
        step = self._manager.latest_step()
        if step is None:
            return None
        numbers: dict[str, Any] = {
            key: float.fromhex(value) if isinstance(value, str) else value
            for key, value in self._restored(step, numbers=ocp.args.JsonRestore()).items()
        }
        numbers["changes"] = tuple(numbers["changes"])  # JSON knows lists alone
        arrays = _parted(like(numbers["phase"]))[0]
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, arrays)
        restored = self._restored(step, arrays=ocp.args.StandardRestore(abstract))
        # Orbax ties arrays to their device, and programs for such arrays are compiled anew.
        free = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)), restored)
        return Search(**{**free, **numbers})

    def _restored(self, step: int, **item: ocp.args.CheckpointArgs) -> Any:
        """One item of a checkpoint."""
        (name,) = item
        return self._manager.restore(step, args=ocp.args.Composite(**item))[name]


def _parted(search: Search) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arrays, and plain numbers; floats in hexadecimal, which is exact and knows infinity."""
    fields = search._asdict()
    kept = ("eta", "opt_state", "best_eta", "inner", "control", "average", "shared")
    arrays = {key: fields.pop(key) for key in kept}
    return arrays, {key: v.hex() if isinstance(v, float) else v for key, v in fields.items()}
