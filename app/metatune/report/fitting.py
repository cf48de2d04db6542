"""Tables that fit the terminal: names are shortened, and columns left out before words break."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
from rich.text import Text

from metatune.recipe.shortening import shortened

LEAST: Final = 26
"""Columns that a name has at least, if it is as long: enough to tell layer and matrix."""

UNBOUNDED: Final = 10_000


@dataclass(frozen=True)
class Name:
    """A name in a cell, cut in its middle where the column is narrower.

    Attributes:
        text: all of it.
        style: as Rich has them.
    """

    text: str
    style: str = ""

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """From `LEAST` columns to all that it is long."""
        width = min(len(self.text), options.max_width)
        return Measurement(min(width, LEAST), width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        """In one line."""
        yield Text(shortened(self.text, options.max_width), self.style, no_wrap=True)


@dataclass(frozen=True)
class Pieces:
    """Short pieces of text, as many on a line as fit, none of them broken.

    Attributes:
        pieces: each a name with its number, say.
        indent: columns before each line.
    """

    pieces: Sequence[str]
    indent: int = 2

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        """Line by line."""
        line = ""
        for number, piece in enumerate(self.pieces):
            said = f"{piece}," if number + 1 < len(self.pieces) else piece
            if line and self.indent + len(line) + 1 + len(said) > options.max_width:
                yield Text(" " * self.indent + line)
                line = ""
            line = f"{line} {said}" if line else said
        yield Text(" " * self.indent + line)


@dataclass(frozen=True)
class Fitting:
    """One of several ways to say the same: the first that fits.

    Attributes:
        ways: the widest first; the last is taken if none fits.
        slack: columns by which each can be narrowed without breaking a word: `slack_of` its names.
    """

    ways: Sequence[RenderableType]
    slack: int = 0

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        """The way that fits."""
        whole = options.update(max_width=UNBOUNDED)
        for way in self.ways[:-1]:
            needed = Measurement.get(console, whole, way).maximum - self.slack
            if needed <= options.max_width:
                yield way
                return
        yield self.ways[-1]


def slack_of(names: Sequence[str]) -> int:
    """By how much a column of names can be narrowed."""
    return max(0, max(map(len, names), default=0) - LEAST)
