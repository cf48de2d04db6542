"""Keeps compiled programs between processes, and tells which one is being compiled."""

import os
import time
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import jax

LARGE: Final[Mapping[str, str]] = {
    "forward": "the sweep forward",
    "pullback": "the sweep back",
    "push": "the sweep with tangents",
    "objective": "the objective's gradient",
    "advance": "a training",
    "advance_each": "several trainings",
    "value": "the held-out loss",
    "value_each": "the held-out losses",
}
"""Of `metatune.hypergrad.programs`, those that take long to compile."""

TRACED: Final = "/jax/core/compile/jaxpr_trace_duration"
COMPILED: Final = "/jax/core/compile/backend_compile_duration"

ENTRIES: Final = "*-cache"
"""JAX's name for a compiled program."""
LOOKED: Final = ".metatune-looked"
"""Its time is that of the last look for entries that were cut off."""
ZSTD: Final = b"\x28\xb5\x2f\xfd"


def keep_compiled() -> None:
    """Points JAX's persistent compilation cache to the user's cache folder.

    A folder that the user has set (`JAX_COMPILATION_CACHE_DIR`) is left as it is.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(home / "metatune" / "compiled"))
    folder = Path(str(jax.config.jax_compilation_cache_dir))  # pyright: ignore[reportAttributeAccessIssue]
    if folder.is_dir():
        drop_cut_off(folder)


def drop_cut_off(folder: Path) -> None:
    """Deletes programs that a killed process, or a full disk, has left half-written.

    JAX writes entries in place. One that was cut off it warns of, compiles the program again, and
    doesn't write it, since there is an entry: each process would for ever do the same. What was
    looked at once is looked at no more.
    """
    look, now = folder / LOOKED, time.time()
    since = look.stat().st_mtime if look.exists() else 0.0
    # A folder of somebody else's, or one that another process tidies: then there is no harm done.
    with suppress(OSError):
        for entry in folder.glob(ENTRIES):
            if entry.stat().st_mtime >= since and not _whole(entry.read_bytes()):
                entry.unlink(missing_ok=True)
        look.touch()
        os.utime(look, (now, now))


def _whole(held: bytes) -> bool:
    """Whether compressed bytes have their end."""
    decompressor = _decompressor(held)
    try:
        decompressor.decompress(held)
    except Exception:  # zlib's, or zstandard's, which may not be there to name
        return False
    return decompressor.eof


def _decompressor(held: bytes) -> Any:
    made: Callable[[], Any] = zlib.decompressobj
    if held.startswith(ZSTD):
        # JAX takes it where it is installed, and only then there are such entries.
        import zstandard

        made = zstandard.ZstdDecompressor().decompressobj
    return made()


class Compiler:
    """Which large program XLA compiles now, as JAX tells of it to whoever listens.

    JAX tells when a program has been traced and when it is compiled, with its function's name; what
    lies between is XLA's. There is one for a process, because nothing stops listening.
    """

    def __init__(self) -> None:
        """Listens from now on."""
        self.now: str | None = None
        jax.monitoring.register_event_duration_secs_listener(self._heard)

    def _heard(self, event: str, seconds: float, **what: str | int) -> None:
        name = str(what.get("fun_name", "")).removeprefix("jit(").removesuffix(")")
        if event == TRACED and name in LARGE:
            self.now = LARGE[name]
        elif event == COMPILED and name in LARGE:
            self.now = None


COMPILER: Final = Compiler()
