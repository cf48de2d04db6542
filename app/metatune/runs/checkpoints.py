"""Checkpoints with Orbax: written whole or not at all, looked through before they are trusted.

Of several processes each writes its shards; the first says when all is there, and tidies up.
"""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from metatune.runs import manifest, processes, stops
from metatune.runs.faults import RunFolderError
from metatune.runs.space import room_for

TEMPORARY = "orbax-checkpoint-tmp"
"""In the names of what Orbax hasn't finished."""
BESIDE_ARRAYS: Final = 128 * 1024
"""Bytes of a checkpoint that are no arrays: twenty small files, in blocks of 4 KiB and more."""
T = TypeVar("T")


class RunCheckpoints:
    """The checkpoints of a run, known by a number of steps; the newest are kept."""

    def __init__(self, folder: Path, items: Sequence[str], keep: int):
        """Opens `folder`, and makes it if needed.

        Args:
            folder: theirs.
            items: names of the parts of each.
            keep: how many stay.
        """
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=False)
        self._folder = folder.absolute()
        self._manager = ocp.CheckpointManager(
            self._folder, options=options, item_names=tuple(items)
        )

    def close(self) -> None:
        """Closes the folder."""
        self._manager.close()

    def save(self, step: int, **items: ocp.args.CheckpointArgs) -> None:
        """Writes a checkpoint, all of it or nothing; none where there is one of the same step.

        Raises:
            DiskFull: there is no room; those before are whole.
        """
        if self._manager.latest_step() == step:
            return
        needed = BESIDE_ARRAYS + sum(_bytes(item) for item in items.values())
        try:
            with stops.held(), room_for(self._folder / str(step), needed):
                self._manager.save(step, args=ocp.args.Composite(**items))
                if processes.first():
                    manifest.write(self._folder / str(step))
                processes.wait()
        except Exception:
            self._clear(step)
            raise

    def latest(self, read: Callable[[int], T], say: Callable[[str], None]) -> T | None:
        """What is read of the newest checkpoint that is whole; `None` if there is none at all.

        Damaged ones that are newer are deleted, so that their steps can be done again.

        Args:
            read: a step to what its checkpoint holds.
            say: is told of damaged ones.

        Raises:
            RunFolderError: all are damaged; nothing is deleted then.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        # Only an older metatune left all of them without.
        hashed = any((self._folder / str(step) / manifest.MANIFEST).exists() for step in steps)
        damaged: dict[int, str] = {}
        for step in steps:
            problem = self._damage(step, hashed)
            if problem is None:
                try:
                    found = read(step)
                except Exception as error:  # Orbax raises a dozen kinds
                    problem = f"can't be read: {type(error).__name__}: {_line(error)}"
                    if hashed:
                        raise RunFolderError(
                            f"{self._folder / str(step)}: is whole, but {problem}; was it written "
                            "by another version of metatune, or of Orbax?"
                        ) from error
                else:
                    self._drop(damaged, step, say)
                    return found
            damaged[step] = problem
        if damaged:
            problems = "\n".join(f"  {step}: {problem}" for step, problem in damaged.items())
            raise RunFolderError(
                f"{self._folder}: no checkpoint is whole; put one back from a copy, or begin anew "
                f"with --overwrite or in another folder\n{problems}"
            )
        return None

    def restored(self, step: int, **item: ocp.args.CheckpointArgs) -> Any:
        """One item of a checkpoint."""
        (name,) = item
        return self._manager.restore(step, args=ocp.args.Composite(**item))[name]

    def _damage(self, step: int, hashed: bool) -> str | None:
        folder = self._folder / str(step)
        if (folder / manifest.MANIFEST).exists():
            return manifest.damage(folder)
        return f"has no {manifest.MANIFEST}, which is written last" if hashed else None

    def _drop(self, damaged: dict[int, str], whole: int, say: Callable[[str], None]) -> None:
        for step, problem in damaged.items():
            say(
                f"checkpoint {self._folder / str(step)} is damaged: {problem}; going on from "
                f"{whole}, so that steps {whole + 1} to {step} are done again"
            )
            if processes.first():
                shutil.rmtree(self._folder / str(step))
        if damaged:
            processes.wait()
            self._manager.reload()

    def _clear(self, step: int) -> None:
        """Takes away what was written of a checkpoint that failed, for want of room, say."""
        for entry in self._folder.iterdir() if processes.first() else ():
            if entry.name == str(step) or TEMPORARY in entry.name:
                shutil.rmtree(entry, ignore_errors=True)
        self._manager.reload()


def unbound(leaf: jax.Array | np.ndarray) -> jax.Array:
    """An array that Orbax has read, as programs take it.

    Orbax ties arrays to their device, and programs for such arrays are compiled anew. A copy, as a
    training takes the memory of its state. What lies on several devices is bound to them anyway.
    """
    if isinstance(leaf, jax.Array) and len(leaf.sharding.device_set) > 1:
        return leaf
    return jnp.array(np.asarray(leaf))


def savable(leaf: Any) -> Any:
    """An array as Orbax takes it: of several processes, what each has whole is the first's."""
    whole = isinstance(leaf, jax.Array) and leaf.is_fully_addressable
    return np.asarray(leaf) if whole and processes.here().count > 1 else leaf


def _bytes(item: Any) -> int:
    """Of the arrays of an item."""
    leaves = jax.tree.leaves(getattr(item, "item", ()))
    return sum(getattr(leaf, "nbytes", 0) for leaf in leaves)


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else ""
