"""Reads an artefact back, and says what is wrong with one that can't be read."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors

from metatune.artefact import certificate, ledger, manifest, origin, verdict
from metatune.artefact.document import faults, tensor_faults
from metatune.artefact.errors import ArtefactError
from metatune.artefact.files import FORMAT, TENSORS, TUNED, VERSION
from metatune.artefact.format import Artefact
from metatune.artefact.manifest import sha256
from metatune.artefact.sections import SECTIONS
from metatune.artefact.sections.section import Held
from metatune.artefact.writing import integrity
from metatune.recipe.bounds import OutOfBounds, read_json
from metatune.recipe.faults import Fault

CURE = "take the artefact anew from the run that wrote it"


def load(path: str | Path) -> Artefact:
    """Reads an artefact.

    Args:
        path: a tuned.json, the artefact folder, or a run folder that holds `artefact/`.

    Returns:
        The artefact, every number exactly as it was written, and the certificate, the ledger of a
        transfer and the verdict beside it if they are of its recipe.

    Raises:
        ArtefactError: nothing there, not an artefact, an unknown version, a missing or unknown
            key, a value that isn't allowed, a file that is missing, was changed or was added after
            it was written, or a certificate that can't be read. Artefacts that were written
            before the hashes of all files were kept have none, and are read without.
    """
    file = _find(Path(path))
    document = _parse(file)
    if wrong := faults(document, CURE):
        raise ArtefactError(str(file), wrong)
    _check_integrity(file, document)
    held = Held(file.parent, _tensors(file, document))
    found = certificate.read(file.parent)
    sections: dict[str, Any] = {
        key: None if (stated := document.get(key)) is None else section.read(stated, held)
        for key, section in SECTIONS.items()
    }
    tuned = Artefact(
        horizon_steps=document["horizon"]["steps"],
        horizon_tokens=document["horizon"]["tokens"],
        provenance=document["provenance"],
        result=document["result"],
        origin=origin.read(file.parent),
        **sections,
    )
    tuned = ledger.with_ledger(certificate.with_certificate(tuned, found), ledger.read(file.parent))
    return verdict.with_verdict(tuned, verdict.read(file.parent))


def folder_of(path: str | Path) -> Path:
    """The artefact folder that `load` would read.

    Raises:
        ArtefactError: nothing there.
    """
    return _find(Path(path)).parent


def _find(path: Path) -> Path:
    candidates = [path, path / TUNED, path / "artefact" / TUNED]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    problem = f"holds no artefact; looked for {', '.join(str(place) for place in candidates)}"
    if not path.exists():
        problem = "isn't there"
    cure = "give a run folder of `metatune fit`, an artefact folder, or a tuned.json"
    raise ArtefactError(str(path), [f"{problem}; {cure}"])


def _parse(file: Path) -> dict[str, Any]:
    try:
        document = read_json(file)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}: {error.msg}"
        raise ArtefactError(str(file), [f"not JSON ({place}); {CURE}"]) from error
    except UnicodeDecodeError as error:
        raise ArtefactError(str(file), [f"not UTF-8 text ({error.reason}); {CURE}"]) from error
    except OutOfBounds as error:
        raise ArtefactError(str(file), [f"holds {error}; {CURE}"]) from error
    found = document.get("format") if isinstance(document, dict) else None
    if not isinstance(document, dict) or found != FORMAT:
        cure = f"give the {TUNED} of a run of `metatune fit`"
        raise ArtefactError(str(file), [Fault("format", found, f"must be {FORMAT!r}", cure)])
    version = document.get("version")
    if version != VERSION or isinstance(version, bool):
        problem = f"an unknown version, this metatune reads version {VERSION}"
        raise ArtefactError(str(file), [Fault("version", version, problem, "upgrade metatune")])
    return document


def _check_integrity(file: Path, document: Mapping[str, Any]) -> None:
    stated, found = document["integrity"]["sha256"], integrity(document)
    if stated != found:
        problem = f"the hash of the content is {found}: the file was changed after it was written"
        raise ArtefactError(str(file), [Fault("integrity.sha256", stated, problem, CURE)])
    if "files" in document["integrity"]:
        if wrong := manifest.faults(file.parent, document["integrity"]["files"]):
            raise ArtefactError(str(file), wrong)


def _tensors(file: Path, document: Mapping[str, Any]) -> Mapping[str, np.ndarray]:
    """What the file beside a document holds, empty if there is none."""
    tensors = document.get("tensors")
    if tensors is None:
        return {}
    beside = file.parent / TENSORS
    if not beside.is_file():
        problem = f"not found at {beside}, where the numbers must be that {TUNED} doesn't hold"
        cure = f"copy it together with {TUNED}"
        raise ArtefactError(str(file), [Fault("tensors.file", TENSORS, problem, cure)])
    content = beside.read_bytes()
    if sha256(content) != tensors["sha256"]:
        problem = f"the hash of {beside} is {sha256(content)}: it isn't the one that was written"
        fault = Fault("tensors.sha256", tensors["sha256"], problem, CURE)
        raise ArtefactError(str(file), [fault])
    try:
        held = load_tensors(content)
    except (SafetensorError, KeyError, ValueError) as error:  # of dtypes that NumPy hasn't
        raise ArtefactError(str(beside), [f"not safetensors ({error!r}); {CURE}"]) from error
    if wrong := tensor_faults(document, held, CURE):
        raise ArtefactError(str(beside), wrong)
    return held
