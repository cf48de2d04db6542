"""Files by path or glob, read through their compression, and their identity."""

import bz2
import codecs
import glob
import gzip
import io
import json
import lzma
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Final

from metatune.data.sources.records import Location
from metatune.recipe.faults import Fault, RecipeError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


def _open_zstandard(path: Path) -> io.BufferedIOBase:
    # Frames may look back this far (`zstd --ultra --long=31`); by default 2^27 bytes is all.
    return zstd.open(path, options={zstd.DecompressionParameter.window_log_max: LONGEST_WINDOW})


OPENERS: Final[Mapping[str, Callable[[Path], io.BufferedIOBase]]] = {
    ".gz": lambda path: gzip.open(path),
    ".bz2": lambda path: bz2.open(path),
    ".xz": lambda path: lzma.open(path),
    ".zst": _open_zstandard,
}
"""How compressed files are opened, by the end of their name, in small letters."""

LONGEST_WINDOW: Final = 31  # a power of two, in bytes
MARK: Final = codecs.BOM_UTF8
"""Says at the beginning of a file that it is UTF-8, and is no part of the text."""

DAMAGED: Final = (
    OSError,
    EOFError,
    UnicodeError,
    zlib.error,
    json.JSONDecodeError,
    RecursionError,
    lzma.LZMAError,
    zstd.ZstdError,
)
"""What reading a damaged file may raise, besides what Arrow raises."""


def find(field: str, patterns: str | Sequence[str]) -> list[Path]:
    """The files that a field of the recipe names, in order of their names.

    Args:
        field: its dotted path, for errors.
        patterns: paths or globs.

    Raises:
        RecipeError: one of them names no file; all such are in it.
    """
    found: dict[Path, None] = {}
    faults = []
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        path = Path(pattern).expanduser()
        if path.is_dir():
            cure = f"write a glob, e.g. {Path(pattern) / '*'}"
            faults.append(Fault(field, pattern, "is a folder", cure))
        elif path.exists():
            found[path] = None
        else:
            matching = sorted(map(Path, glob.glob(str(path), recursive=True)))
            files = [file for file in matching if file.is_file()]
            problem = "matches no file" if glob.has_magic(pattern) else "no such file"
            if not files:
                cure = f"relative paths start at the working directory, {Path.cwd()}"
                faults.append(Fault(field, pattern, problem, cure))
            found |= dict.fromkeys(files)
    if not found and not faults:
        faults.append(Fault(field, patterns, "names no file", "write a path or a glob"))
    if faults:
        raise RecipeError("data", faults)
    return list(found)


@contextmanager
def reading(place: Location) -> Iterator[None]:
    """Turns what a damaged or unreadable file raises into a RecipeError."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, (*DAMAGED, *_of_arrow())):
            raise
        said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        first = (said or type(error).__name__).splitlines()[0]
        raise place.refuse(f"can't be read: {first}", "give a whole, readable file") from error


def _of_arrow() -> tuple[type[Exception], ...]:
    """What Arrow raises. Only what reads its files imports it, as it takes long."""
    arrow = sys.modules.get("pyarrow")
    return () if arrow is None else (arrow.ArrowException,)


def open_file(path: Path) -> io.BufferedIOBase:
    """Opens a file for reading, through its compression."""
    return OPENERS.get(path.suffix.lower(), lambda path: path.open("rb"))(path)


def blocks(path: Path, field: str, size: int = 2**20) -> Iterator[bytes]:
    """The bytes of a file, `size` at a time."""
    with reading(Location(field, str(path))), open_file(path) as file:
        while block := file.read(size):
            yield block


def lines(path: Path, field: str) -> Iterator[tuple[Location, str]]:
    """The lines of a file with their ends, what isn't UTF-8 as surrogates; a mark is left out."""
    source = str(path)
    with reading(Location(field, source, "line")), open_file(path) as file:
        for number, line in enumerate(file, 1):
            line = line.removeprefix(MARK) if number == 1 else line
            yield Location(field, source, "line", number), line.decode("utf-8", "surrogateescape")


def content_hash(paths: Sequence[Path], field: str) -> str:
    """The identity of files: their contents in order, and how they are compressed."""
    whole = sha256()
    for path in paths:
        with reading(Location(field, str(path))), path.open("rb") as file:
            suffix = path.suffix.lower()
            whole.update(f"{suffix in OPENERS and suffix}\n".encode())
            whole.update(file_digest(file, "sha256").digest())
    return whole.hexdigest()
