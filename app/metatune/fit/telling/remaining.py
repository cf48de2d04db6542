"""How long a search still takes, by the outer steps that it has taken."""

from collections.abc import Sequence
from typing import Final, NamedTuple

RECENT: Final = 4
"""Outer steps that tell the pace: every second may be validated, and each have its differences."""


class Taken(NamedTuple):
    """An outer step that was taken.

    Attributes:
        inner_steps: that it differentiated.
        seconds: that it took.
        phase: of the search.
    """

    inner_steps: int
    seconds: float
    phase: int = 0


def warm(taken: Sequence[Taken]) -> list[Taken]:
    """Those that compiled nothing: not the first of a process, of a phase, or of a horizon."""
    pairs = zip(taken[:-1], taken[1:], strict=True)
    return [
        now
        for before, now in pairs
        if (before.inner_steps, before.phase) == (now.inner_steps, now.phase)
    ]


def pace(taken: Sequence[Taken]) -> float:
    """Seconds for an inner step that is differentiated, of those that are warm if any is.

    Args:
        taken: at least one.
    """
    those = warm(taken) or taken
    return sum(each.seconds for each in those) / sum(each.inner_steps for each in those)


def seconds_left(taken: Sequence[Taken], ahead: Sequence[int], count: int) -> float:
    """What the outer steps that are left will take at the pace of the latest.

    Too long while none is warm.

    Args:
        taken: by this process so far; none for no time at all.
        ahead: inner steps of outer steps up to the last one; () where none are known.
        count: how many outer steps are left; those that `ahead` doesn't have are as the latest.
    """
    if not taken or not count:
        return 0.0
    latest = warm(taken)[-RECENT:] or taken[-1:]
    known = list(ahead[-count:])
    return pace(latest) * (sum(known) + (count - len(known)) * taken[-1].inner_steps)
