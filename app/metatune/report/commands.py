"""Commands that a page names, to be typed."""

import shlex


def typed(*words: object) -> str:
    """A command: what a shell takes for something else is quoted."""
    return shlex.join(map(str, ("metatune", *words)))
