"""A text cut into documents, and documents into splits.

A document falls on the side that its own content says, so that no document is both held out and
trained on, in whatever domain or order it comes, unless a domain's `use` says otherwise. A document
that ends in a blank line was cut without a look at what follows: where such documents change
places, they stay the same documents.

Short stretches that a text repeats, such as a licence, can still be on two sides.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Final, Literal, get_args

Split = Literal["train", "validation", "test"]
SPLITS: Final[tuple[Split, ...]] = get_args(Split)

SHORTEST: Final = 4096  # bytes of a document, unless the text ends
LONGEST: Final = 6144  # bytes

# Where a document may end, the best place first: after a blank line, after a line.
ENDS: Final = (re.compile(rb"(?:\r?\n){2,}"), re.compile(rb"\n"))

LONGEST_CHARACTER: Final = 4  # bytes of UTF-8
HASH_BYTES: Final = 6  # 48 bits: the fraction is exact in float64, and below one


def cut(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Documents of `SHORTEST` to `LONGEST` bytes, which joined give the text again.

    A document ends at the first blank line from `SHORTEST` on, else at the first end of a line,
    else at `LONGEST`, or at most three bytes before, between two characters.

    Args:
        blocks: the text in UTF-8, a stretch at a time; where it is divided makes no difference.
    """
    content, start = b"", 0
    for block in blocks:
        content, start = content[start:] + block, 0
        while len(content) - start > LONGEST:
            end = _end(content, start)
            yield content[start:end]
            start = end
    while start < len(content):
        end = _end(content, start)
        yield content[start:end]
        start = end


def _end(content: bytes, start: int) -> int:
    """One past the last byte of the document that begins at `start`."""
    longest = start + LONGEST
    for kind in ENDS:
        if found := kind.search(content, start + SHORTEST, longest):
            return found.end()
    if longest >= len(content):
        return len(content)
    for end in range(longest, longest - LONGEST_CHARACTER, -1):
        if content[end] & 0b1100_0000 != 0b1000_0000:  # not inside a character of UTF-8
            return end
    return longest  # this isn't UTF-8


def side(digest: bytes, validation: float, test: float) -> Split:
    """The split of a document, by a hash of its content.

    Args:
        digest: SHA-256 of the document.
        validation: share of all possible documents that fall into `validation`.
        test: share that falls into `test`.
    """
    place = int.from_bytes(digest[:HASH_BYTES], "big") / 256**HASH_BYTES  # uniform on [0, 1)
    if place < validation:
        return "validation"
    return "test" if place < validation + test else "train"
