"""The ledger of a transfer beside an artefact: transfer.json, of the ladder that was climbed."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from metatune.artefact.beside import OWN, is_of, read_stated
from metatune.artefact.files import TRANSFER, TRANSFER_FORMAT, TRANSFER_VERSION
from metatune.artefact.format import Artefact

CURE = "delete it, and write it anew with `metatune transfer RUN`"
KEYS = (*OWN, "verdict", "rule", "rungs", "farther")


def read(folder: Path) -> dict[str, Any] | None:
    """The ledger in an artefact folder; None if there is none.

    Raises:
        ArtefactError: it can't be read, is of an unknown version, or lacks something.
    """
    return read_stated(folder / TRANSFER, (TRANSFER_FORMAT, TRANSFER_VERSION), KEYS, CURE)


def with_ledger(artefact: Artefact, ledger: Mapping[str, Any] | None) -> Artefact:
    """An artefact with a ledger; without one where it is None, or of other schedules."""
    own = ledger is not None and is_of(artefact, ledger)
    return replace(artefact, transfer=ledger if own else None)
