"""Keeps compiled programs between processes, so that a second run starts at once."""

import os
import sys
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import jax

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
        set_option("jax_compilation_cache_dir", str(home / "metatune" / "compiled"))
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
    try:
        decompressor = _decompressor(held)
    except ImportError:  # of another environment, which has what wrote it
        return True
    try:
        decompressor.decompress(held)
    except Exception:  # zlib's, or zstandard's, which may not be there to name
        return False
    return decompressor.eof


def _decompressor(held: bytes) -> Any:
    made: Callable[[], Any] = zlib.decompressobj
    if held.startswith(ZSTD):
        # JAX takes it where it is installed, and only then there are such entries.
        import zstandard  # pyright: ignore[reportMissingImports]

        made = zstandard.ZstdDecompressor().decompressobj
    return made()


def set_option(name: str, value: Any) -> bool:
    """Sets an option of JAX, and returns whether this JAX has it.

    Options come and go between the releases that metatune works with; none that is set here changes
    a result, so that one which is unknown is left out, with a line on stderr.
    """
    try:
        jax.config.update(name, value)
    except AttributeError:
        print(f"left out: jax {jax.__version__} has no option {name}", file=sys.stderr)
        return False
    return True
