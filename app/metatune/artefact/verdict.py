"""The verdict beside an artefact: verdict.json, of the contest with what a user would have done."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from metatune.artefact.beside import OWN, is_of, read_stated
from metatune.artefact.files import VERDICT, VERDICT_FORMAT, VERDICT_VERSION
from metatune.artefact.format import Artefact

CURE = "delete it, and write it anew with `metatune verdict RUN`"
KEYS = (*OWN, "word", "sentence", "gain", "rivals", "refused", "seeds")


def read(folder: Path) -> dict[str, Any] | None:
    """The verdict in an artefact folder; None if there is none.

    Raises:
        ArtefactError: it can't be read, is of an unknown version, or lacks something.
    """
    return read_stated(folder / VERDICT, (VERDICT_FORMAT, VERDICT_VERSION), KEYS, CURE)


def with_verdict(artefact: Artefact, verdict: Mapping[str, Any] | None) -> Artefact:
    """An artefact with a verdict; without one where it is None, or of other schedules."""
    own = verdict is not None and is_of(artefact, verdict)
    return replace(artefact, verdict=verdict if own else None)
