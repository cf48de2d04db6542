"""Paths of a recipe's fields: what an error names is what an override takes.

Keys are joined by dots, entries of lists stand in brackets, and a key that holds a dot or another
of these signs stands in double quotes: `data.domains."c4.en".max_tokens`, `outer.phases[0].steps`.
"""

import json
import re
from typing import Final

PLAIN: Final = re.compile(r"[^\s.\[\]\"'=]+\Z")
"""A key that needs no quotes."""

SEGMENT: Final = re.compile(r'"(?:[^"\\]|\\.)*"|\[\d+\]|[^.\[\]"=]+')
"""A key, bare or in quotes, or an entry's number in brackets."""


def joined(path: str, key: object) -> str:
    """The path of a key of the section at `path`.

    >>> joined(joined("data", "domains"), "c4.en")
    'data.domains."c4.en"'
    """
    name = str(key)
    if not PLAIN.match(name):
        name = json.dumps(name, ensure_ascii=False)
    return f"{path}.{name}" if path else name


def parted(text: str) -> tuple[list[str | int], str] | None:
    """The keys of a path at the beginning of a text, and what follows it from its `=` on.

    >>> parted('outer.phases[0].steps=3')
    (['outer', 'phases', 0, 'steps'], '=3')

    Returns:
        Keys, and the numbers of list entries; the rest, empty where there is no `=`. None where it
        is no path.
    """
    keys: list[str | int] = []
    at = 0
    while True:
        found = SEGMENT.match(text, at)
        if found is None:
            return None
        said, at = found[0].strip(), found.end()
        if said.startswith("["):
            if not keys:
                return None
            keys.append(int(said[1:-1]))
        else:
            try:
                keys.append(json.loads(said) if said.startswith('"') else said)
            except ValueError:
                return None
        if not keys[-1] and keys[-1] != 0:
            return None
        if at < len(text) and text[at] == ".":
            at += 1
        elif at == len(text) or text[at] == "=":
            return keys, text[at:]
        elif text[at] != "[":
            return None
