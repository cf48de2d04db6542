"""What is in a checkpoint: a hash of each file, written last, so that damage is seen."""

import hashlib
import json
from pathlib import Path
from typing import Any, Final

from metatune.runs.files import replace

MANIFEST: Final = "metatune-manifest.json"
FORMAT: Final = "metatune-checkpoint"
VERSION: Final = 1


def write(folder: Path) -> None:
    """Hashes what is in a folder, and writes that into it."""
    files = {name: _entry(folder / name) for name in _names(folder)}
    document = {
        "format": FORMAT,
        "version": VERSION,
        "files": files,
        "sha256": _of(files),
    }
    replace(folder / MANIFEST, json.dumps(document, indent=1) + "\n")


def damage(folder: Path) -> str | None:
    """What is wrong with a folder that has a manifest; None if it is as it was written."""
    try:
        held = json.loads((folder / MANIFEST).read_bytes())
        files = held["files"]
        if held["format"] != FORMAT or held["version"] != VERSION or held["sha256"] != _of(files):
            raise ValueError("not what was written")
    except (ValueError, KeyError, TypeError) as error:
        return f"{MANIFEST} can't be read: {error}"
    there = _names(folder)
    if lost := sorted(set(files) - set(there)):
        return f"{', '.join(lost[:3])} {'is' if len(lost) == 1 else 'are'} missing"
    for name, entry in files.items():
        size = (folder / name).stat().st_size
        if size != entry["bytes"]:
            return f"{name} has {size:,} bytes of {entry['bytes']:,}"
        if _entry(folder / name) != entry:
            return f"{name} has other bytes than were written"
    return None


def _names(folder: Path) -> list[str]:
    found = (path for path in folder.rglob("*") if path.is_file())
    names = sorted(path.relative_to(folder).as_posix() for path in found)
    return [name for name in names if not name.startswith(MANIFEST)]


def _entry(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def _of(files: Any) -> str:
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
