"""A text cut into documents, documents into splits, splits into windows.

A document falls on the side that its own content says, so that no document is both held out and
trained on, in whatever domain or order it comes. A document that ends in a blank line was cut
without a look at what follows: where such documents change places, they stay the same documents.

Short stretches that a text repeats, such as a licence, can still be on two sides.
"""

import re
from collections.abc import Iterable
from hashlib import sha256
from typing import Final, Literal, get_args

import numpy as np

from metatune.data.tokenizers import ByteTokenizer

Split = Literal["train", "outer", "report"]
SPLITS: Final[tuple[Split, ...]] = get_args(Split)

SHORTEST: Final = 4096  # bytes of a document, unless the text ends
LONGEST: Final = 6144  # bytes

# Where a document may end, the best place first: after a blank line, after a line.
ENDS: Final = (re.compile(rb"(?:\r?\n){2,}"), re.compile(rb"\n"))

HASH_BYTES: Final = 6  # 48 bits: the fraction is exact in float64, and below one


def cut(text: str) -> list[str]:
    """Documents of `SHORTEST` to `LONGEST` bytes, which joined give `text` again.

    A document ends at the first blank line from `SHORTEST` on, else at the first end of a line,
    else at `LONGEST`, or at most three bytes before, between two characters.
    """
    content = text.encode("utf-8")
    documents, start = [], 0
    while start < len(content):
        end = _end(content, start)
        documents.append(content[start:end].decode("utf-8"))
        start = end
    return documents


def _end(content: bytes, start: int) -> int:
    """One past the last byte of the document that begins at `start`."""
    longest = start + LONGEST
    for kind in ENDS:
        if found := kind.search(content, start + SHORTEST, longest):
            return found.end()
    if longest >= len(content):
        return len(content)
    while content[longest] & 0b1100_0000 == 0b1000_0000:  # inside a character of UTF-8
        longest -= 1
    return longest


def side(document: str, outer: float, report: float) -> Split:
    """The split of a document, by a hash of its content.

    Args:
        document: its text.
        outer: share of all possible documents that fall into `outer`.
        report: share that falls into `report`.
    """
    digest = sha256(document.encode("utf-8")).digest()
    place = int.from_bytes(digest[:HASH_BYTES], "big") / 256**HASH_BYTES  # uniform on [0, 1)
    if place < outer:
        return "outer"
    return "report" if place < outer + report else "train"


def tokens(documents: Iterable[str], tokenizer: ByteTokenizer) -> np.ndarray:
    """The tokens of `documents` with an end-of-sequence token after each, uint16 [tokens]."""
    end = np.array([tokenizer.eos_id], np.uint16)
    pieces = [piece for document in documents for piece in (tokenizer.encode(document), end)]
    return np.concatenate([np.empty(0, np.uint16), *pieces])


def windows(stream: np.ndarray, length: int) -> np.ndarray:
    """Consecutive stretches of `stream`, [windows, length]; a shorter rest is left out."""
    count = len(stream) // length
    return stream[: count * length].reshape(count, length)
