"""What a process printed last, for those who are left when it has ended."""

import re
import threading
from collections.abc import Iterable
from typing import Any, Final

LONGEST: Final = 500
"""Characters of a line that are kept."""

_CONTROLS: Final = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07]*\x07|[\0-\x08\x7f]")
"""Colours, and movements of a terminal's cursor."""


class LastLine:
    """The last line that went through any of its streams.

    Attributes:
        changed: set with each further one; whoever has seen it clears it.
    """

    def __init__(self):
        """Nothing is printed yet."""
        self.changed = threading.Event()
        self._text = ""

    def __str__(self) -> str:
        """The line, without colours; empty where nothing was printed."""
        return self._text

    def note(self, text: str) -> None:
        """Takes note of the last line of a text that isn't empty, if there is one."""
        lines = re.split(r"[\n\r]+", _CONTROLS.sub("", text))
        said = next((" ".join(line.split()) for line in reversed(lines) if line.strip()), "")
        if said and said[:LONGEST] != self._text:
            self._text = said[:LONGEST]
            self.changed.set()

    def of(self, stream: Any) -> Any:
        """A stream, the last line of which is noted."""
        return _Noted(stream, self)


class _Noted:
    """A text stream in all but that it takes note."""

    def __init__(self, stream: Any, last: LastLine):
        self._stream, self._last, self._begun = stream, last, ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        written = self._stream.write(text)
        self._begun += text
        self._last.note(self._begun)
        self._begun = re.split(r"[\n\r]", self._begun)[-1]
        return written

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)
