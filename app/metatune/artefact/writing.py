"""Writes an artefact: tuned.json, its README.md, and what else it has.

That is tuned.safetensors if the curves are many, what its sections put into files of their own,
certificate.json, transfer.json and verdict.json if it was asked for them, and what it can be
trained again from. tuned.json has the hashes of all of them.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save as save_tensors

from metatune.artefact import beside as documents
from metatune.artefact import certificate, origin
from metatune.artefact.document import document, faults, held, tensor_faults
from metatune.artefact.errors import ArtefactError
from metatune.artefact.files import (
    CERTIFICATE,
    INITIALISATION,
    README,
    TENSORS,
    TRANSFER,
    TUNED,
    VERDICT,
)
from metatune.artefact.folders import replace_folder
from metatune.artefact.format import Artefact
from metatune.artefact.manifest import hashes, sha256
from metatune.recipe.faults import ABSENT, Fault

LINE_LENGTH = 100

OWN = {TUNED, TENSORS, INITIALISATION, README, CERTIFICATE, TRANSFER, VERDICT, *origin.FILES}
"""Names of the files of an artefact."""

CURE = "an artefact can't be written with it"


def write(folder: str | Path, artefact: Artefact, readme: str) -> Path:
    """Writes `artefact` as a whole folder, in the place of an older one of the same name.

    Args:
        folder: the artefact folder; may be absent, or hold an older artefact.
        artefact: what to write; every number comes back exactly from `load`.
        readme: text of its README.md.

    Returns:
        The path of its tuned.json.

    Raises:
        ArtefactError: a value that the format doesn't allow, or a folder with other files in it.
    """
    folder = Path(folder)
    beside: dict[str, bytes | str] = {README: readme}
    if artefact.certificate is not None:
        beside[CERTIFICATE] = certificate.rendered(artefact.certificate)
    if artefact.transfer is not None:
        beside[TRANSFER] = documents.rendered(artefact.transfer)
    if artefact.verdict is not None:
        beside[VERDICT] = documents.rendered(artefact.verdict)
    if artefact.origin is not None:
        beside |= origin.files(artefact.origin)
    files = {**beside, **_files(artefact, str(folder), beside)}
    replace_folder(folder, files, OWN.__contains__)
    return folder / TUNED


def self_contained(artefact: Artefact) -> str:
    """The text of a tuned.json that holds every number itself, however many.

    Raises:
        ArtefactError: a value that the format doesn't allow, or what stands outside: rates within
            parameters, a start, or networks.
    """
    outside = []
    for section, value in held(artefact):
        written = section.written(value, False)
        if section.alone is not None and (written.tensors or written.files):
            path, problem = section.alone
            outside.append(Fault(path, ABSENT, problem))
    if outside:
        raise ArtefactError("artefact", outside)
    return str(portable_files(artefact)[TUNED])


def portable_files(artefact: Artefact) -> dict[str, bytes | str]:
    """A tuned.json that holds every curve itself, however long, by its file name.

    Beside it a tuned.safetensors where rates were tuned within parameters, or networks, and an
    initialisation.safetensors where the start was tuned.

    Raises:
        ArtefactError: a value that the format doesn't allow.
    """
    return _files(artefact, "artefact", None)


def _files(
    artefact: Artefact, source: str, beside: Mapping[str, bytes | str] | None
) -> dict[str, bytes | str]:
    """The files with the numbers.

    Args:
        artefact: the artefact.
        source: what errors call it.
        beside: the other files of the folder, whose hashes the document is to hold; None where it
            is to hold none, and as many numbers as can be.
    """
    try:
        written = {
            section.key: section.written(value, beside is not None)
            for section, value in held(artefact)
        }
    except ArtefactError as error:
        raise ArtefactError(source, error.faults) from error
    files: dict[str, bytes | str] = {}
    tensors: dict[str, np.ndarray] = {}
    for each in written.values():
        files |= each.files
        tensors |= each.tensors
    stated = document(artefact, {key: each.document for key, each in written.items()})
    if tensors:
        content = save_tensors({name: np.ascontiguousarray(own) for name, own in tensors.items()})
        stated["tensors"] = {"file": TENSORS, "sha256": sha256(content)}
        files[TENSORS] = content
    listed = None if beside is None else hashes({**beside, **files})
    return {**files, TUNED: _sealed(stated, source, tensors, listed)}


def integrity(document: Mapping[str, Any]) -> str:
    """SHA-256, in hexadecimal, of the canonical JSON of a document.

    That is without its `integrity`, of which only the hashes of the files beside it stay, where it
    has any. Canonical: keys sorted, no white space, UTF-8 without escapes, floats in their shortest
    form.
    """
    rest = {key: value for key, value in document.items() if key != "integrity"}
    if "files" in (stated := document.get("integrity", {})):
        rest["integrity"] = {"files": stated["files"]}
    text = json.dumps(
        rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return sha256(text.encode())


def _sealed(
    stated: dict[str, Any],
    source: str,
    tensors: Mapping[str, np.ndarray],
    files: Mapping[str, str] | None = None,
) -> str:
    """The text of a document after all checks, with its hash.

    Args:
        stated: the document without its `integrity`.
        source: what errors call it.
        tensors: what stands outside the document.
        files: hashes of the files beside it; None where it stands alone.
    """
    wrong = faults(stated | {"integrity": {"sha256": ""}}, CURE)
    if wrong or (wrong := tensor_faults(stated, tensors, CURE)):
        raise ArtefactError(source, wrong)
    beside = {} if files is None else {"files": files}
    sealed = integrity(stated | {"integrity": beside})
    return rendered(stated | {"integrity": {"sha256": sealed, **beside}}) + "\n"


def rendered(value: Any, indent: str = "") -> str:
    """JSON with a line for each curve: lists of numbers stay on one line, however long."""
    flat = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if isinstance(value, list):
        numbers = all(isinstance(entry, int | float) for entry in value)
        if numbers or len(indent) + len(flat) <= LINE_LENGTH and not _nested(value):
            return flat
        inner = [rendered(entry, indent + "  ") for entry in value]
        brackets = "[]"
    elif isinstance(value, dict) and value:
        inner = [
            f"{json.dumps(key, ensure_ascii=False)}: {rendered(entry, indent + '  ')}"
            for key, entry in value.items()
        ]
        brackets = "{}"
    else:
        return flat
    lines = ",\n".join(f"{indent}  {entry}" for entry in inner)
    return f"{brackets[0]}\n{lines}\n{indent}{brackets[1]}"


def _nested(value: list[Any]) -> bool:
    return any(isinstance(entry, list | dict) for entry in value)
