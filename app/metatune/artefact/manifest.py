"""The files of an artefact by their hashes: what is missing, edited or added is named."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from metatune.artefact.files import CERTIFICATE, TRANSFER, TUNED, VERDICT
from metatune.recipe.faults import Fault

WHERE = "integrity.files"
WHOLE = "copy the whole folder; `metatune export --to json` makes a tuned.json that stands alone"
ANEW = "take the artefact anew from the run that wrote it"


def sha256(content: bytes | str) -> str:
    """SHA-256 of `content`, of text as UTF-8, in hexadecimal."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def hashes(files: Mapping[str, bytes | str]) -> dict[str, str]:
    """SHA-256 of each file of an artefact besides tuned.json, by name."""
    return {name: sha256(files[name]) for name in sorted(files) if name != TUNED}


def faults(folder: Path, stated: Mapping[str, str]) -> list[Fault]:
    """How a folder differs from the hashes that its tuned.json states.

    Folders in it, and files whose name begins with a dot, are none of ours and don't count.
    """
    found = {path.name: path for path in sorted(folder.iterdir()) if _counts(path)}
    faults = []
    for name, expected in stated.items():
        path = folder / name
        if name not in found:
            problem = f"not found at {path}, where it was written"
            faults.append(Fault(f"{WHERE}.{name}", expected, problem, WHOLE))
        elif (now := sha256(path.read_bytes())) != expected:
            problem = f"the hash of {path} is {now}: the file was changed after it was written"
            faults.append(Fault(f"{WHERE}.{name}", expected, problem, ANEW))
    for name in found:
        if name not in stated and name != TUNED:
            problem = f"lies in {folder}, but isn't of the artefact ({', '.join(stated)})"
            faults.append(Fault(WHERE, name, problem, _away(name)))
    return faults


def _counts(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".")


def _away(name: str) -> str:
    if name == CERTIFICATE:
        return "delete it: `metatune check --run` writes it so that the artefact stays whole"
    if name == TRANSFER:
        return "delete it: `metatune transfer` writes it so that the artefact stays whole"
    if name == VERDICT:
        return "delete it: `metatune verdict` writes it so that the artefact stays whole"
    return "move it away"
