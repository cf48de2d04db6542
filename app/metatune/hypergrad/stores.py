"""Where states wait between the forward and the backward sweep: device, host memory or disk."""

import contextlib
import math
import os
import shutil
import tempfile
from collections.abc import Hashable
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, PyTree, Shaped, UInt8
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

Leaf = Shaped[Array, "..."]
Handle = TypeVar("Handle")
"""What a place returns for arrays that it keeps: its own, nobody else looks into it."""

MEMORY = Path("/proc/meminfo")


def tree_bytes(tree: PyTree) -> int:
    """Bytes of all arrays of a pytree, or of arrays of such shapes."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def device_bytes(tree: PyTree) -> int:
    """Bytes that arrays take of each device that they lie on; of all that are cut a part.

    Args:
        tree: of arrays, or of their shapes; what lies nowhere yet, or is traced, counts whole.
    """
    total = 0
    for leaf in jax.tree.leaves(tree):
        place = getattr(leaf, "sharding", None)
        shape = leaf.shape if place is None else place.shard_shape(leaf.shape)
        if hasattr(leaf.dtype, "itemsize"):
            total += math.prod(shape) * leaf.dtype.itemsize
    return total


class CheckpointError(RuntimeError):
    """A state can't be kept: no room for it, or no way to write it."""


@runtime_checkable
class Place(Protocol[Handle]):
    """Somewhere to put a list of arrays."""

    def write(self, leaves: list[Leaf]) -> Handle:
        """Puts arrays there; returns what `read` and `delete` ask for."""
        ...

    def read(self, handle: Handle) -> list[Leaf]:
        """The arrays, bit for bit and on the devices they came from."""
        ...

    def delete(self, handle: Handle) -> None:
        """Makes room again."""
        ...

    def close(self) -> None:
        """Leaves nothing behind."""
        ...

    def free_bytes(self) -> int:
        """How much more there is room for."""
        ...


def free_memory() -> int:
    """Bytes of the machine's memory that a process may still take."""
    if MEMORY.exists():  # Linux, which tells what caches would give back
        (line,) = (x for x in MEMORY.read_text().splitlines() if x.startswith("MemAvailable:"))
        return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


class Device:
    """Leaves arrays where they are; the only place for arrays that JAX is tracing."""

    def write(self, leaves: list[Leaf]) -> list[Leaf]:
        """Keeps a reference."""
        return leaves

    def read(self, handle: list[Leaf]) -> list[Leaf]:
        """The very same arrays."""
        return handle

    def delete(self, handle: list[Leaf]) -> None:
        """Nothing to do: whoever held the handle lets go of it."""

    def close(self) -> None:
        """Nothing to do."""

    def __str__(self) -> str:
        """In an error."""
        return "device memory"

    def free_bytes(self) -> int:
        """Of the first device of this process; of the machine where that is the device."""
        stats = jax.local_devices()[0].memory_stats()
        if not stats or "bytes_limit" not in stats:
            return free_memory()
        return stats["bytes_limit"] - stats["bytes_in_use"]


class Home(NamedTuple):
    """What makes a device's array out of plain memory again.

    Attributes:
        shape: its shape.
        dtype: its type.
        sharding: the devices it is bound to; None for an array that JAX may move, which has to
            stay so: programs are compiled anew for the other kind.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    sharding: jax.sharding.Sharding | None


def _home(leaf: Leaf) -> Home:
    return Home(leaf.shape, leaf.dtype, leaf.sharding if leaf.committed else None)


Copied = tuple[Shaped[np.ndarray, "..."], Home]


class Host:
    """NumPy copies in the memory of the process."""

    def write(self, leaves: list[Leaf]) -> list[Copied]:
        """Copies; a mere view, which JAX gives on CPUs, would keep the device's buffer alive."""
        return [(np.array(leaf, copy=True), _home(leaf)) for leaf in leaves]

    def read(self, handle: list[Copied]) -> list[Leaf]:
        """Puts the copies back on the device."""
        return [jax.device_put(array, home.sharding) for array, home in handle]

    def delete(self, handle: list[Copied]) -> None:
        """Nothing to do: whoever held the handle lets go of it."""

    def close(self) -> None:
        """Nothing to do."""

    def __str__(self) -> str:
        """In an error."""
        return "host memory"

    def free_bytes(self) -> int:
        """Of the machine's memory."""
        return free_memory()


class Disk:
    """A safetensors file per list, in a folder of its own that is removed at the end.

    Arrays are written as bytes, because safetensors knows no bfloat16 on NumPy's side.
    """

    def __init__(self, folder: Path):
        """Makes the folder.

        Args:
            folder: where the folder is made; made itself if missing.

        Raises:
            CheckpointError: it can't be made.
        """
        self._written = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._folder = Path(tempfile.mkdtemp(prefix="states-", dir=folder))
        except OSError as error:
            raise CheckpointError(
                f"{folder}: no checkpoints can be kept here ({error.strerror}); "
                "give a folder that can be written to"
            ) from error

    def write(self, leaves: list[Leaf]) -> tuple[Path, list[Home]]:
        """Writes a file beside its place, then renames it."""
        needed = sum(leaf.nbytes for leaf in leaves)
        path = self._folder / f"{self._written}.safetensors"
        beside = path.with_suffix(".partial")
        try:
            save_file({str(i): _as_bytes(leaf) for i, leaf in enumerate(leaves)}, beside)
            beside.rename(path)
        except (OSError, SafetensorError) as error:
            beside.unlink(missing_ok=True)
            why = error.strerror if isinstance(error, OSError) else error
            raise CheckpointError(
                f"{path}: needs {needed} bytes and could not be written ({why}); "
                f"{self.free_bytes()} bytes are free; make room, give another folder or keep "
                "fewer states"
            ) from error
        self._written += 1
        return path, [_home(leaf) for leaf in leaves]

    def read(self, handle: tuple[Path, list[Home]]) -> list[Leaf]:
        """Puts the arrays of a file back on the device."""
        path, homes = handle
        found = load_file(path)
        return [
            jax.device_put(found[str(i)].view(home.dtype).reshape(home.shape), home.sharding)
            for i, home in enumerate(homes)
        ]

    def delete(self, handle: tuple[Path, list[Home]]) -> None:
        """Deletes a file."""
        handle[0].unlink()

    def close(self) -> None:
        """Removes the folder and all that is in it."""
        shutil.rmtree(self._folder)

    def free_bytes(self) -> int:
        """Of the file system."""
        return shutil.disk_usage(self._folder).free

    def __str__(self) -> str:
        """The folder."""
        return str(self._folder)


def _as_bytes(leaf: Leaf) -> UInt8[np.ndarray, "bytes"]:
    return np.ascontiguousarray(leaf).reshape(-1).view(np.uint8)


class Store(contextlib.AbstractContextManager):
    """Pytrees by key in one place, and how much lies there.

    Attributes:
        peak_bytes: the most that lay there at a time.
        place: where that is.
    """

    def __init__(self, place: Place, budget_bytes: int | None = None):
        """Begins empty.

        Args:
            place: where pytrees are put.
            budget_bytes: how much may lie there at a time; None for all there is.
        """
        self.peak_bytes = 0
        self.place = place
        self._budget, self._used = budget_bytes, 0
        # Structure, handle, bytes; only JAX looks into the first, only the place into the second.
        self._held: dict[Hashable, tuple[PyTree, PyTree, int]] = {}

    def put(self, key: Hashable, tree: PyTree) -> None:
        """Keeps a pytree of arrays.

        Raises:
            CheckpointError: there is no room for it, or it can't be written.
        """
        leaves, treedef = jax.tree.flatten(tree)
        size = tree_bytes(leaves)
        if self._budget is not None and self._used + size > self._budget:
            raise CheckpointError(
                f"{self.place}: a state needs {size} bytes, but {self._budget - self._used} of the "
                f"budget of {self._budget} bytes are free; raise the budget or keep fewer states"
            )
        self._held[key] = (treedef, self.place.write(leaves), size)
        self._used += size
        self.peak_bytes = max(self.peak_bytes, self._used)

    def get(self, key: Hashable) -> PyTree:
        """The pytree under `key`, bit for bit as it was put there."""
        treedef, handle, _ = self._held[key]
        return jax.tree.unflatten(treedef, self.place.read(handle))

    def pop(self, key: Hashable) -> PyTree:
        """As `get`; the store lets go of it."""
        tree = self.get(key)
        _, handle, size = self._held.pop(key)
        self.place.delete(handle)
        self._used -= size
        return tree

    def __enter__(self) -> "Store":
        """The store itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Empties it, also after an error."""
        self._held.clear()
        self.place.close()
