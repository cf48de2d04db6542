"""JSON documents that lie beside a tuned.json, each with a format and a version."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from metatune.artefact.errors import ArtefactError
from metatune.artefact.format import Artefact
from metatune.recipe.bounds import read_json
from metatune.recipe.faults import ABSENT, Fault

OWN: Final = ("recipe_sha256", "best_outer_step")
"""By what a document says which schedules it is of."""


def rendered(document: Mapping[str, Any]) -> str:
    """The text of a document."""
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def is_of(artefact: Artefact, document: Mapping[str, Any]) -> bool:
    """Whether a document is of the schedules of an artefact."""
    own = (artefact.provenance.get(OWN[0]), artefact.result.get(OWN[1]))
    return tuple(document.get(key) for key in OWN) == own


def read_stated(
    file: Path, stating: tuple[str, int], keys: Sequence[str], cure: str
) -> dict[str, Any] | None:
    """A document; None if there is none.

    Args:
        file: where it lies.
        stating: the format and the version that it must state.
        keys: that it must have.
        cure: what to do about one that is wrong.

    Raises:
        ArtefactError: it can't be read, is of an unknown version, or lacks something.
    """
    if not file.is_file():
        return None
    try:
        document = read_json(file)
    except ValueError as error:
        raise ArtefactError(str(file), [f"not JSON ({error}); {cure}"]) from error
    stated = document if isinstance(document, dict) else {}
    for key, known in zip(("format", "version"), stating, strict=True):
        if stated.get(key) != known:
            fault = Fault(key, stated.get(key), f"must be {known!r}", cure)
            raise ArtefactError(str(file), [fault])
    if missing := [key for key in keys if key not in stated]:
        raise ArtefactError(str(file), [Fault(missing[0], ABSENT, "is missing", cure)])
    return stated
