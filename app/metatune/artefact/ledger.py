"""The ledger of a transfer beside an artefact: transfer.json, of the ladder that was climbed."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from metatune.artefact.beside import read_stated
from metatune.artefact.files import TRANSFER, TRANSFER_FORMAT, TRANSFER_VERSION
from metatune.artefact.format import Artefact

CURE = "delete it, and write it anew with `metatune transfer RUN`"
OWN = ("recipe_sha256", "best_outer_step")
"""By what a ledger says whose it is."""

KEYS = (*OWN, "verdict", "rule", "rungs", "farther")


def rendered(ledger: Mapping[str, Any]) -> str:
    """The text of a transfer.json."""
    return json.dumps(ledger, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def read(folder: Path) -> dict[str, Any] | None:
    """The ledger in an artefact folder; None if there is none.

    Raises:
        ArtefactError: it can't be read, is of an unknown version, or lacks something.
    """
    return read_stated(folder / TRANSFER, (TRANSFER_FORMAT, TRANSFER_VERSION), KEYS, CURE)


def with_ledger(artefact: Artefact, ledger: Mapping[str, Any] | None) -> Artefact:
    """An artefact with a ledger; without one where it is None, or of other schedules."""
    own = (artefact.provenance.get(OWN[0]), artefact.result.get(OWN[1]))
    if ledger is None or tuple(ledger.get(key) for key in OWN) != own:
        return replace(artefact, transfer=None)
    return replace(artefact, transfer=ledger)
