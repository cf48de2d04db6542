"""What sources yield: documents, and before that the rows of a file."""

from collections.abc import Iterable, Mapping
from enum import IntEnum
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from metatune.recipe.faults import LONGEST_VALUE, Fault, RecipeError

ROWS: Final = 256
"""Of a table that are plain values at a time."""


class TokenClass(IntEnum):
    """What part of a document a token is of."""

    TEXT = 0
    PROMPT = 1
    COMPLETION = 2
    SYSTEM = 3
    TOOL = 4


class ClassSpan(NamedTuple):
    """A stretch of a document, from where the one before ends.

    Attributes:
        role: the class of its tokens.
        end: one past its last character.
    """

    role: TokenClass
    end: int


class Record(NamedTuple):
    """A document.

    Attributes:
        text: the whole of it, valid Unicode; empty where a row holds none, or ready tokens.
        spans: the stretches that make up the text, where there are prompts and answers; else none.
        replaced: invalid bytes that became U+FFFD.
        label: what its source says of it; empty where the recipe names no such column.
        rendered: whether a chat template wrote it, with all that a conversation begins with.
        ready: the tokens, where the source has no text but these.
        origin: what it was rendered from, by which it falls into a split; empty where that is the
            text itself.
    """

    text: str
    spans: tuple[ClassSpan, ...] = ()
    replaced: int = 0
    label: str = ""
    origin: str = ""
    rendered: bool = False
    ready: "Ready | None" = None

    @property
    def empty(self) -> bool:
        """Whether the row holds no document."""
        return not self.text and self.ready is None


class Ready(NamedTuple):
    """Tokens that a source has, as they are: nothing is added to them.

    Attributes:
        ids: uint32 [tokens], one or more.
        classes: the `TokenClass` of each, uint8 [tokens]; None where nothing is masked.
    """

    ids: np.ndarray
    classes: np.ndarray | None


class Location(NamedTuple):
    """Where something stands, for errors.

    Attributes:
        field: the recipe's, dotted.
        source: a file or a dataset.
        unit: what is counted in it: line, row.
        number: which one, from 1; 0 for the whole.
    """

    field: str
    source: str
    unit: str = ""
    number: int = 0

    def refuse(self, problem: str, cure: str) -> RecipeError:
        """The error of a problem at this place."""
        where = f"{self.unit} {self.number}: " if self.number else ""
        if len(repr(self.source)) > LONGEST_VALUE:  # then the end is cut off, the file's own name
            where = f"{Path(self.source).name}: {where}"
        return RecipeError("data", [Fault(self.field, self.source, where + problem, cure)])

    def require(self, wanted: Iterable[str], there: Iterable[str]) -> None:
        """Refuses what lacks a column.

        Raises:
            RecipeError: a column that is wanted isn't there.
        """
        there = list(there)
        for name in wanted:
            if name not in there:
                problem = f"has no column {name}; there are: {', '.join(there) or 'none'}"
                cure = "name them by column, or prompt and completion, or messages"
                raise self.refuse(problem, cure)


class Row(NamedTuple):
    """Values by column, as a reader gives them: `normal` says what they are.

    Text may hold surrogates for bytes that aren't UTF-8, or be bytes.
    """

    place: Location
    values: Mapping[str, Any]
