"""Documents that strangers wrote, JSON and YAML, read within bounds.

Parsers take what is written: a thousand levels, a number of a million digits, a list that stands in
itself ten times, ten times over. None of that is a recipe, a config or an artefact; it is refused
here, before anything walks through it.
"""

import json
import math
from pathlib import Path
from typing import Any, Final

DEEPEST: Final = 64
"""Levels of lists and mappings within each other."""

MOST_DIGITS: Final = 40
"""Of a whole number; 2**64 has twenty."""

MOST_VALUES: Final = 2_000_000
"""Values of a document, aliases written out."""

MOST_BYTES: Final = 32 * 2**20
"""Of a document in JSON."""

MOST_BYTES_YAML: Final = 128 * 2**10
"""Of a document in YAML, whose parser is slow."""


class OutOfBounds(ValueError):
    """A document beyond the bounds; says which."""


def parsed_json(
    content: str | bytes, most_bytes: int = MOST_BYTES, most_values: int | None = None
) -> Any:
    """The value that a text in JSON says.

    Args:
        content: the text, or its bytes in UTF-8.
        most_bytes: how long it may be.
        most_values: how many values it may have; `MOST_VALUES` by default.

    Raises:
        OutOfBounds: it is longer, deeper, or has more values or a larger number than a document
            of metatune's, transformers' or tokenizers' has.
        ValueError: it isn't JSON, as of `json.loads` (`json.JSONDecodeError`,
            `UnicodeDecodeError`).
    """
    refuse_longer(len(content), most_bytes)
    try:
        value = json.loads(content, parse_int=whole, parse_float=real)
    except RecursionError as error:
        raise too_deep() from error
    deepest, values, stack = 1, 1, [(value, 1)]
    while stack:
        held, depth = stack.pop()
        deepest = max(deepest, depth)
        inner = held.values() if isinstance(held, dict) else held if isinstance(held, list) else ()
        values += len(inner)
        if deepest > DEEPEST:
            raise too_deep()
        stack += [(each, depth + 1) for each in inner if isinstance(each, dict | list)]
    refuse_more(values, most_values)
    return value


def read_json(path: Path, most_bytes: int = MOST_BYTES, most_values: int | None = None) -> Any:
    """As `parsed_json`, of a file; one that is too long isn't read.

    Raises:
        OSError: it can't be read.
        ValueError: as of `parsed_json`.
    """
    refuse_longer(path.stat().st_size, most_bytes)
    return parsed_json(path.read_bytes(), most_bytes, most_values)


def whole(text: str) -> int:
    """A whole number from its digits.

    Raises:
        OutOfBounds: it has more than `MOST_DIGITS`.
    """
    if len(text) > MOST_DIGITS + 1:
        raise OutOfBounds(
            f"a number of {len(text):,} digits ({text[:12]}...); whole numbers have {MOST_DIGITS} "
            "at most"
        )
    return int(text)


def real(text: str) -> float:
    """A number from its digits.

    Raises:
        OutOfBounds: it is beyond what a float64 holds.
    """
    number = float(text)
    if math.isinf(number):
        raise OutOfBounds(f"the number {text[:24]} is beyond what a float64 holds, 1.8e308")
    return number


def refuse_longer(size: int, most: int) -> None:
    """Refuses a document of too many bytes."""
    if size > most:
        raise OutOfBounds(f"{size:,} bytes long; must be {most:,} at most")


def refuse_more(values: int, most: int | None = None) -> None:
    """Refuses a document of too many values."""
    most = MOST_VALUES if most is None else most
    if values > most:
        raise OutOfBounds(f"{values:,} values, aliases written out; must be {most:,} at most")


def too_deep() -> OutOfBounds:
    """The error of a document whose lists and mappings are too deep in each other."""
    return OutOfBounds(f"lists and mappings in each other; must be {DEEPEST} levels at most")
