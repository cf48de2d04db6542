"""Text that may not be UTF-8: refused, or made so and counted.

Readers decode with `surrogateescape`: what isn't UTF-8 stands as surrogates, which valid text never
holds, until it is judged here. JSON can hold surrogates too, written as escapes.
"""

import re
from typing import Final, Literal

from metatune.data.sources.records import Location

Policy = Literal["refuse", "replace"]

SURROGATES: Final = re.compile("[\ud800-\udfff]")
CURE: Final = "convert it to UTF-8 text, or set data.invalid_utf8 to replace"


def sound(text: str | bytes, policy: Policy, place: Location, what: str) -> tuple[str, int]:
    """Valid text.

    Args:
        text: as a reader gives it.
        policy: what to do about what isn't UTF-8.
        place: where it stands.
        what: what it is, for errors.

    Returns:
        The text, and how many bytes of it (or surrogates) became U+FFFD.

    Raises:
        RecipeError: it isn't UTF-8 and shall be refused.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    first = SURROGATES.search(text)
    if first is None:
        return text, 0
    if policy == "replace":
        return SURROGATES.subn("\ufffd", text)
    begin = len(text[: first.start()].encode("utf-8"))
    problem = f"{what} isn't UTF-8: byte {begin} of it is {said(first[0])}"
    raise place.refuse(problem, CURE)


def said(surrogate: str) -> str:
    """What a surrogate stands for."""
    code = ord(surrogate)
    escaped = 0xDC80 <= code <= 0xDCFF  # a byte, by surrogateescape
    return f"{code - 0xDC00:#04x}" if escaped else f"the surrogate \\u{code:04x}"
