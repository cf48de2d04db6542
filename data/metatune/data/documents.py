"""Cuts a text into documents, and sends each to a split by its own content."""

import hashlib
from typing import Literal

Split = Literal["train", "outer", "report"]

DOCUMENT_BYTES = 4096
"""Where a text has no marked documents, they are about so long."""


def documents(text: str) -> list[str]:
    """Cuts a text into documents of about `DOCUMENT_BYTES`; joined they are the text again.

    A document ends at the last blank line within its bytes, else at the last line end, else
    between two characters.
    """
    data = text.encode()
    pieces, start = [], 0
    while len(data) - start > DOCUMENT_BYTES:
        window = data[start : start + DOCUMENT_BYTES]
        end = _end(window)
        pieces.append(window[:end].decode())
        start += end
    if start < len(data):
        pieces.append(data[start:].decode())
    return pieces


def _end(window: bytes) -> int:
    for mark in (b"\n\n", b"\n"):
        if (found := window.rfind(mark)) >= 0:
            return found + len(mark)
    # A continuation byte of UTF-8 is 10xxxxxx: never begin a document with one.
    end = len(window)
    while window[end - 1] & 0b1100_0000 == 0b1000_0000:
        end -= 1
    return end - 1 if window[end - 1] >= 0b1100_0000 else end


def split_of(document: str, outer: float, report: float) -> Split:
    """The split of a document, by a hash of its content.

    The same document is always on the same side, whatever stands before it.

    Args:
        document: its text.
        outer: share of the outer split.
        report: share of the report split.
    """
    digest = hashlib.sha256(document.encode()).digest()
    fraction = int.from_bytes(digest[:8]) / 2**64
    if fraction < outer:
        return "outer"
    return "report" if fraction < outer + report else "train"
