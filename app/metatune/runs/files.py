"""Files that are whole or not there, and logs of JSON lines whose last may be cut off.

Of several processes the first writes them; on the others writing does nothing.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metatune.recipe.bounds import parsed_json
from metatune.runs import processes
from metatune.runs.faults import RunFolderError
from metatune.runs.space import room_for


def replace(path: Path, content: str | bytes) -> None:
    """Writes a file beside its place, then renames it; text in UTF-8.

    Raises:
        DiskFull: there is no room.
    """
    if not processes.first():
        return
    data = content.encode() if isinstance(content, str) else content
    beside = partial(path)
    with room_for(path, len(data)):
        try:
            with beside.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            beside.unlink(missing_ok=True)
            raise
    os.replace(beside, path)


def partial(path: Path) -> Path:
    """Where a file or folder is written before it is put in its place."""
    return path.with_name(path.name + ".partial")


def append_line(path: Path, line: Mapping[str, Any]) -> None:
    """Adds a line to a log.

    Raises:
        DiskFull: there is no room.
    """
    if not processes.first():
        return
    text = json.dumps(line) + "\n"
    with room_for(path, len(text)), path.open("a", encoding="utf-8") as file:
        file.write(text)


def whole_lines(path: Path, cure: str) -> list[dict[str, Any]]:
    """The lines of a log; a last one that was cut off is left out.

    Args:
        path: of the log; there may be none.
        cure: what to do about a line that is damaged.

    Raises:
        RunFolderError: another line isn't JSON of names and values, or is beyond the bounds of
            `metatune.recipe.bounds`.
    """
    if not path.exists():
        return []
    lines = []
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), start=1):
        if not line.endswith(b"\n"):
            break
        try:
            held = parsed_json(line)
            if not isinstance(held, dict):
                raise ValueError("no names and values in braces")
        except ValueError as error:
            raise RunFolderError(f"{path}: line {number} is damaged ({error}); {cure}") from None
        lines.append(held)
    return lines


def mend(path: Path) -> None:
    """Takes away a last line that was cut off, so that the next one begins where it should."""
    if not path.exists():
        return
    held = path.read_bytes()
    whole = held[: held.rfind(b"\n") + 1]
    if whole != held:
        replace(path, whole)
