"""Where states wait between the forward and the backward sweep: device, host memory or disk."""

import contextlib
import json
import math
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Hashable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, Protocol, TypeVar, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, PyTree, Shaped, UInt8
from safetensors import SafetensorError
from safetensors.numpy import save_file

from metatune.hypergrad.hosts import host_bytes

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

    def expect(self, handle: Handle) -> None:
        """Is told that this will be read next, while something else is computed."""
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

    def needed_bytes(self, tree: PyTree) -> int:
        """What arrays, or such shapes, take of that room."""
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

    def expect(self, handle: list[Leaf]) -> None:
        """Nothing to do: they are there."""

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
        """Of the first device of this process; where that is the machine, of its share of it."""
        stats = jax.local_devices()[0].memory_stats()
        if not stats or "bytes_limit" not in stats:
            return free_memory() // jax.local_device_count()
        return stats["bytes_limit"] - stats["bytes_in_use"]

    def needed_bytes(self, tree: PyTree) -> int:
        """Of each device."""
        return device_bytes(tree)


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


Region = tuple[tuple[int | None, int | None], ...]
"""Bounds along each axis of an array; empty for all of it."""
Shards = dict[Region, Shaped[np.ndarray, "..."]]
"""What the devices of this process hold of an array, each part once, by where it is."""
Copied = tuple[Shards, Home]


def _shards(leaf: Leaf) -> Shards:
    """Views or copies; of an array on one device all of it."""
    if len(leaf.sharding.device_set) == 1:
        return {(): np.asarray(leaf)}
    return {
        tuple((part.start, part.stop) for part in shard.index): np.asarray(shard.data)
        for shard in leaf.addressable_shards
    }


def _whole(shards: Shards, home: Home) -> Leaf:
    """The array again, on the devices that it came from; no part passes through another's."""
    if () in shards or home.sharding is None:
        (array,) = shards.values()
        return jax.device_put(array, home.sharding)
    places = home.sharding.addressable_devices_indices_map(home.shape)
    parts = [
        jax.device_put(shards[tuple((part.start, part.stop) for part in index or ())], device)
        for device, index in places.items()
    ]
    return jax.make_array_from_single_device_arrays(
        home.shape, home.sharding, parts, dtype=home.dtype
    )


class Host:
    """NumPy copies in the memory of the process, of each device's part by itself."""

    def write(self, leaves: list[Leaf]) -> list[Copied]:
        """Copies; a mere view, which JAX gives on CPUs, would keep the device's buffer alive."""
        return [
            ({at: np.array(part, copy=True) for at, part in _shards(leaf).items()}, _home(leaf))
            for leaf in leaves
        ]

    def expect(self, handle: list[Copied]) -> None:
        """Nothing to do: they are in memory."""

    def read(self, handle: list[Copied]) -> list[Leaf]:
        """Puts the copies back on the devices."""
        return [_whole(shards, home) for shards, home in handle]

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

    def needed_bytes(self, tree: PyTree) -> int:
        """Of all devices of this process."""
        return host_bytes(tree)


PENDING: Final = 2
"""Lists of arrays that wait to be written: of a segment, its state and what it saved."""


Parts = dict[str, Shaped[np.ndarray, "..."]]
"""Of a file's arrays, by name."""


@dataclass(eq=False)
class StateFile:
    """A file of a disk.

    Attributes:
        path: the file.
        homes: what each of its arrays was.
        shapes: of each of its arrays the shapes of its parts, once it is written.
        loaded: its parts, once they are read; None where they aren't expected.
    """

    path: Path
    homes: list[Home]
    shapes: Future[list[dict[Region, tuple[int, ...]]]]
    loaded: Future[Parts] | None = None


class Disk:
    """A safetensors file per list, in a folder of its own that is removed at the end.

    A thread writes while the next segment is computed, and reads what is expected next; arrays that
    wait for it, `PENDING` lists at most, stay on their devices. What it can't write is told by the
    next call, or by the one that wants to read it.

    Of an array on several devices each part is written by itself, by the process that has it.
    Arrays are written as bytes, because safetensors knows no bfloat16 on NumPy's side.
    """

    def __init__(self, folder: Path):
        """Makes the folder.

        Args:
            folder: where the folder is made; made itself if missing.

        Raises:
            CheckpointError: it can't be made.
        """
        self._count = 0
        self._pending: deque[StateFile] = deque()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._folder = Path(tempfile.mkdtemp(prefix="states-", dir=folder))
        except OSError as error:
            raise CheckpointError(
                f"{folder}: no checkpoints can be kept here ({error.strerror}); "
                "give a folder that can be written to"
            ) from error
        self._thread = ThreadPoolExecutor(1, "states")

    def write(self, leaves: list[Leaf]) -> StateFile:
        """Has a file written, once there is room among those that wait.

        Raises:
            CheckpointError: an earlier one couldn't be.
        """
        while len(self._pending) >= PENDING:
            self._pending.popleft().shapes.result()
        path = self._folder / f"{self._count}.safetensors"
        self._count += 1
        homes = [_home(leaf) for leaf in leaves]
        handle = StateFile(path, homes, self._thread.submit(self._save, path, leaves))
        self._pending.append(handle)
        return handle

    def expect(self, handle: StateFile) -> None:
        """Has a file read, once it is written."""
        if handle.loaded is None:
            handle.loaded = self._thread.submit(self._load, handle)

    def read(self, handle: StateFile) -> list[Leaf]:
        """Puts the arrays of a file back on the devices.

        Raises:
            CheckpointError: it couldn't be written.
        """
        self.expect(handle)
        assert handle.loaded is not None, "it is expected"
        found, handle.loaded = handle.loaded.result(), None
        return [
            _whole(
                {
                    at: found.pop(f"{i} {number}").view(home.dtype).reshape(shape)
                    for number, (at, shape) in enumerate(parts.items())
                },
                home,
            )
            for i, (parts, home) in enumerate(
                zip(handle.shapes.result(), handle.homes, strict=True)
            )
        ]

    def _save(self, path: Path, leaves: list[Leaf]) -> list[dict[Region, tuple[int, ...]]]:
        """Writes a file beside its place, then renames it; returns the shapes of its parts."""
        held = [_shards(leaf) for leaf in leaves]
        needed = sum(part.nbytes for shards in held for part in shards.values())
        beside = path.with_suffix(".partial")
        try:
            parts = {
                f"{i} {number}": _as_bytes(part)
                for i, shards in enumerate(held)
                for number, part in enumerate(shards.values())
            }
            save_file(parts, beside)
            beside.rename(path)
        except (OSError, SafetensorError) as error:
            beside.unlink(missing_ok=True)
            why = error.strerror if isinstance(error, OSError) else error
            raise CheckpointError(
                f"{path}: needs {needed} bytes and could not be written ({why}); "
                f"{self.free_bytes()} bytes are free; make room, give another folder or keep "
                "fewer states"
            ) from error
        return [{at: part.shape for at, part in shards.items()} for shards in held]

    def _load(self, handle: StateFile) -> Parts:
        """The parts of a file, which was handed to the same thread before."""
        handle.shapes.result()
        return load_parts(handle.path)

    def delete(self, handle: StateFile) -> None:
        """Deletes a file."""
        handle.path.unlink()

    def close(self) -> None:
        """Removes the folder and all that is in it, once the thread is done with it."""
        # Not by joining: what a signal raises in Python 3.11's `join` makes it forget the thread.
        wait([each.shapes for each in self._pending if not each.shapes.cancel()])
        self._thread.shutdown(wait=False)
        shutil.rmtree(self._folder)

    def free_bytes(self) -> int:
        """Of the file system."""
        return shutil.disk_usage(self._folder).free

    def needed_bytes(self, tree: PyTree) -> int:
        """Of all devices of this process."""
        return host_bytes(tree)

    def __str__(self) -> str:
        """The folder."""
        return str(self._folder)


def load_parts(path: Path) -> Parts:
    """Bytes of the tensors of a safetensors file: read, as a mapped one lies beside its copies."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        begin = file.tell()
    spans = {name: told["data_offsets"] for name, told in header.items()}
    return {
        name: np.fromfile(path, np.uint8, last - first, offset=begin + first)
        for name, (first, last) in spans.items()
    }


def _as_bytes(leaf: Shaped[np.ndarray, "..."]) -> UInt8[np.ndarray, "bytes"]:
    return np.ascontiguousarray(leaf).reshape(-1).view(np.uint8)


class Store(contextlib.AbstractContextManager):
    """Pytrees by key in one place, and how much lies there.

    Attributes:
        peak_bytes: the most that lay there at a time, as the place counts it.
        place: where that is.
    """

    def __init__(self, place: Place, budget_bytes: int | None = None):
        """Begins empty.

        Args:
            place: where pytrees are put.
            budget_bytes: how much may lie there at a time, as the place counts it; None for all
                there is.
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
        size = self.place.needed_bytes(leaves)
        if self._budget is not None and self._used + size > self._budget:
            raise CheckpointError(
                f"{self.place}: a state needs {size} bytes, but {self._budget - self._used} of the "
                f"budget of {self._budget} bytes are free; raise the budget or keep fewer states"
            )
        self._held[key] = (treedef, self.place.write(leaves), size)
        self._used += size
        self.peak_bytes = max(self.peak_bytes, self._used)

    def expect(self, key: Hashable) -> None:
        """Has the pytree under `key` fetched, if there is one, while something else is computed."""
        if key in self._held:
            self.place.expect(self._held[key][1])

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
