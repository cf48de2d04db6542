"""Checkpoints of the outer loop, with Orbax: all that is needed to go on bit for bit."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from metatune.fit.searching.search import Search
from metatune.runs import checkpoints


class SearchCheckpoints:
    """The checkpoints of one run; the newest two are kept."""

    def __init__(self, folder: Path, saved: Callable[[], object] = lambda: None):
        """Opens `folder`, makes it if needed, and calls `saved` whenever there is a checkpoint."""
        self._saved = saved
        self._kept = checkpoints.RunCheckpoints(folder, ("arrays", "numbers"), keep=2)

    def __enter__(self) -> "SearchCheckpoints":
        """Returns itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the folder."""
        self._kept.close()

    def save(self, search: Search) -> None:
        """Writes a checkpoint; all of it or nothing.

        Raises:
            DiskFull: there is no room.
        """
        arrays, numbers = _parted(search)
        self._kept.save(
            search.step,
            arrays=ocp.args.StandardSave(arrays),
            numbers=ocp.args.JsonSave(numbers),
        )
        self._saved()

    def latest(
        self, like: Callable[[int], Search], say: Callable[[str], None] = print
    ) -> Search | None:
        """The newest checkpoint that is whole; `None` if there is none at all.

        Args:
            like: the number of a phase to a search with arrays of the shapes that it has there.
            say: is told of damaged ones.

        Raises:
            RunFolderError: all are damaged.
        """
        found = self._kept.latest(partial(self._read, like), say)
        if found is not None:
            self._saved()
        return found

    def _read(self, like: Callable[[int], Search], step: int) -> Search:
        numbers: dict[str, Any] = {
            key: float.fromhex(value) if isinstance(value, str) else value
            for key, value in self._kept.restored(step, numbers=ocp.args.JsonRestore()).items()
        }
        numbers["changes"] = tuple(numbers["changes"])  # JSON knows lists alone
        arrays = _parted(like(numbers["phase"]))[0]
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, arrays)
        restored = self._kept.restored(step, arrays=ocp.args.StandardRestore(abstract))
        free = jax.tree.map(checkpoints.unbound, restored)
        return Search(**{**free, **numbers})


def _parted(search: Search) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arrays, and plain numbers; floats in hexadecimal, which is exact and knows infinity."""
    fields = search._asdict()
    kept = (
        "eta",
        "opt_state",
        "best_eta",
        "inner",
        "control",
        "average",
        "shared",
        "signal",
        "trust",
    )
    arrays = {key: jax.tree.map(checkpoints.savable, fields.pop(key)) for key in kept}
    return arrays, {key: v.hex() if isinstance(v, float) else v for key, v in fields.items()}
