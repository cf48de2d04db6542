"""The verdict beside an artefact: verdict.json, of the contest with what a user would have done."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal, get_args

from metatune.artefact.beside import OWN, is_of, read_stated
from metatune.artefact.errors import ArtefactError
from metatune.artefact.files import VERDICT, VERDICT_FORMAT, VERDICT_VERSION
from metatune.artefact.format import Artefact
from metatune.recipe.faults import Fault

Word = Literal[
    "use it",
    "use the simple one",
    "a plain change does as well",
    "keep your defaults",
    "cannot tell",
]
"""What to do."""
USE: Final = "use it"
SIMPLE: Final = "use the simple one"
PLAIN: Final = "a plain change does as well"
KEEP: Final = "keep your defaults"
UNKNOWN: Final = "cannot tell"
WORDS: Final[tuple[str, ...]] = get_args(Word)

CURE = "delete it, and write it anew with `metatune verdict RUN`"
KEYS = (*OWN, "word", "sentence", "gain", "rivals", "refused", "seeds")


def read(folder: Path) -> dict[str, Any] | None:
    """The verdict in an artefact folder; None if there is none.

    Raises:
        ArtefactError: it can't be read, is of an unknown version, lacks something, or has another
            word than those of a verdict.
    """
    file = folder / VERDICT
    found = read_stated(file, (VERDICT_FORMAT, VERDICT_VERSION), KEYS, CURE)
    if found is not None and found["word"] not in WORDS:
        problem = f"must be one of {', '.join(WORDS)}"
        raise ArtefactError(str(file), [Fault("word", found["word"], problem, CURE)])
    return found


def with_verdict(artefact: Artefact, verdict: Mapping[str, Any] | None) -> Artefact:
    """An artefact with a verdict; without one where it is None, or of other schedules."""
    own = verdict is not None and is_of(artefact, verdict)
    return replace(artefact, verdict=verdict if own else None)
