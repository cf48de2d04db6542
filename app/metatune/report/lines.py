"""Lines of a terminal: broken where they may be, never within a word or a number."""

import textwrap
from collections.abc import Iterable

INDENT = "    "
"""Before what goes on with a line."""


def laid_out(fields: Iterable[str], width: int | None) -> str:
    """Fields side by side, in as many lines as the width asks for.

    Args:
        fields: each with its name and number; broken between its words only if it alone is wider.
        width: characters of a line; None for one line of any length.

    Returns:
        The first line at the margin, those after it indented.
    """
    fields = [field for field in fields if field]
    if width is None:
        return "  ".join(fields)
    lines = [""]
    for field in fields:
        joined = f"{lines[-1]}  {field}" if lines[-1].strip() else lines[-1] + field
        if len(joined) <= width:
            lines[-1] = joined
        elif not lines[-1]:
            lines = wrapped(field, width).split("\n")
        elif len(INDENT + field) <= width:
            lines.append(INDENT + field)
        else:
            lines += wrapped(INDENT + field, width).split("\n")
    return "\n".join(lines)


def wrapped(text: str, width: int | None) -> str:
    """A text with its lines broken between words, where they are wider than `width`.

    A word that is wider by itself, a path say, stays whole. What begins indented goes on so.
    """
    if width is None:
        return text
    lines = []
    for line in text.split("\n"):
        margin = line[: len(line) - len(line.lstrip())]
        lines += textwrap.wrap(
            line.strip(),
            max(width, len(INDENT) + len(margin) + 1),
            initial_indent=margin,
            subsequent_indent=margin if len(margin) >= len(INDENT) else margin + INDENT,
            break_long_words=False,
            break_on_hyphens=False,
        ) or [""]
    return "\n".join(lines)
