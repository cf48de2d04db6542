"""The gradient certificate beside an artefact: certificate.json, for the recipe of the run."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from metatune.artefact.beside import read_stated
from metatune.artefact.errors import ArtefactError
from metatune.artefact.files import CERTIFICATE, CERTIFICATE_FORMAT, CERTIFICATE_VERSION, TUNED
from metatune.artefact.format import Artefact
from metatune.recipe.faults import Fault

CURE = "delete it, and write it anew with `metatune check --run`"
KEYS = ("verdict", "causes", "checks")


def rendered(certificate: Mapping[str, Any]) -> str:
    """The text of a certificate.json."""
    return json.dumps(certificate, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def read(folder: Path) -> dict[str, Any] | None:
    """The certificate in an artefact folder; None if there is none.

    Raises:
        ArtefactError: it can't be read, is of an unknown version, or lacks something.
    """
    return read_stated(folder / CERTIFICATE, (CERTIFICATE_FORMAT, CERTIFICATE_VERSION), KEYS, CURE)


def refuse_artefact_folder(out: Path) -> None:
    """A certificate goes into an artefact together with its hash, or not at all.

    Raises:
        ArtefactError: `out` is the folder of an artefact, or a file in it.
    """
    folder = out if out.is_dir() else out.parent
    if (folder / TUNED).is_file():
        problem = "is the folder of an artefact, whose files are known by their hashes"
        fault = Fault("--out", str(out), problem, "write into it with --run, or name another")
        raise ArtefactError("check", [fault])


def with_certificate(artefact: Artefact, certificate: Mapping[str, Any] | None) -> Artefact:
    """An artefact with a certificate; without one where it is None or of another recipe."""
    own = artefact.provenance.get("recipe_sha256")
    if certificate is None or certificate.get("recipe_sha256") != own:
        return replace(artefact, certificate=None)
    return replace(artefact, certificate=certificate)
