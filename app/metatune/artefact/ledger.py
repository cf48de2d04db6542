"""The ledger of a transfer beside an artefact: transfer.json, of the ladder that was climbed."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from metatune.artefact.errors import ArtefactError
from metatune.artefact.files import TRANSFER, TRANSFER_FORMAT, TRANSFER_VERSION
from metatune.artefact.format import Artefact
from metatune.recipe.bounds import read_json
from metatune.recipe.faults import ABSENT, Fault

CURE = "delete it, and write it anew with `metatune transfer RUN`"
OWN = ("recipe_sha256", "best_outer_step")
"""By what a ledger says whose it is."""


def rendered(ledger: Mapping[str, Any]) -> str:
    """The text of a transfer.json."""
    return json.dumps(ledger, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def read(folder: Path) -> dict[str, Any] | None:
    """The ledger in an artefact folder; None if there is none.

    Raises:
        ArtefactError: it can't be read, is of an unknown version, or lacks something.
    """
    file = folder / TRANSFER
    if not file.is_file():
        return None
    try:
        document = read_json(file)
    except ValueError as error:
        raise ArtefactError(str(file), [f"not JSON ({error}); {CURE}"]) from error
    stated = document if isinstance(document, dict) else {}
    for key, known in (("format", TRANSFER_FORMAT), ("version", TRANSFER_VERSION)):
        if stated.get(key) != known:
            raise ArtefactError(
                str(file), [Fault(key, stated.get(key), f"must be {known!r}", CURE)]
            )
    missing = [key for key in (*OWN, "verdict", "rule", "rungs", "farther") if key not in stated]
    if missing:
        raise ArtefactError(str(file), [Fault(missing[0], ABSENT, "is missing", CURE)])
    return stated


def with_ledger(artefact: Artefact, ledger: Mapping[str, Any] | None) -> Artefact:
    """An artefact with a ledger; without one where it is None, or of other schedules."""
    own = (artefact.provenance.get(OWN[0]), artefact.result.get(OWN[1]))
    if ledger is None or tuple(ledger.get(key) for key in OWN) != own:
        return replace(artefact, transfer=None)
    return replace(artefact, transfer=ledger)
