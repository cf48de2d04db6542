"""Text files, cut into documents."""

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from metatune.data.documents import cut
from metatune.data.sources.files import MARK, blocks
from metatune.data.sources.records import Location, Record
from metatune.data.sources.unicode import CURE, Policy, sound


def text_records(paths: Iterable[Path], field: str, policy: Policy) -> Iterator[Record]:
    """The documents of each file in turn; no document goes from one file to the next.

    Raises:
        RecipeError: a file can't be read, or isn't UTF-8 and shall be refused.
    """
    for path in paths:
        place, content = Location(field, str(path)), blocks(path, field)
        first = next(content, b"")
        before = len(MARK) if first.startswith(MARK) else 0
        for document in cut(chain([first[before:]], content)):
            try:
                yield Record(document.decode("utf-8"))
            except UnicodeDecodeError as error:
                if policy == "refuse":
                    byte = f"byte {before + error.start} is {document[error.start]:#04x}"
                    raise place.refuse(f"isn't UTF-8: {byte}", CURE) from error
                text, replaced = sound(document, policy, place, "text")
                yield Record(text, replaced=replaced)
            before += len(document)
