"""Which states between segments a sweep keeps; what isn't kept is recomputed from one that is."""

from dataclasses import dataclass
from math import comb
from typing import NamedTuple, Protocol, runtime_checkable


@runtime_checkable
class Policy(Protocol):
    """Chooses the boundaries that a sweep over segments [lo, hi) keeps."""

    def keep(self, lo: int, hi: int, kept: int) -> range | list[int]:
        """Boundaries strictly between `lo`, which is kept, and `hi - 1`, where the sweep ends.

        The state at `hi - 1` is in the hand of whoever pulls the last segment back.

        Args:
            lo: the segment the sweep starts at.
            hi: one past the segment that is to be pulled back next.
            kept: the number of states that are kept already, `lo` among them.
        """
        ...


class Kept(NamedTuple):
    """What is kept of a training.

    Attributes:
        states: which boundaries.
        saved: whether what a segment saved for its pullback is kept too; the segment is run again
            for it otherwise.
    """

    states: Policy
    saved: bool = True


@dataclass(frozen=True)
class Every:
    """Keeps each `interval`-th boundary, and all of the interval that is pulled back next.

    Of n segments at most n / interval + interval boundaries are kept at a time, and each segment is
    recomputed once at most. With interval = √n both are least (Chen et al., Training Deep Nets with
    Sublinear Memory Cost, 2016, section 4.2).

    Attributes:
        interval: segments between two boundaries kept; 1 keeps all.
    """

    interval: int

    def keep(self, lo: int, hi: int, kept: int) -> list[int]:
        """See `Policy`."""
        last = (hi - 1) // self.interval * self.interval
        return [at for at in range(lo + 1, hi - 1) if at % self.interval == 0 or at > last]


@dataclass(frozen=True)
class Recursive:
    """Keeps at most `slots` boundaries besides the first, with the fewest recomputed segments.

    C(slots + 1 + r, r) segments can be pulled back with no segment run more than r times.

    Source: Griewank & Walther, Algorithm 799: Revolve, ACM TOMS 26, 2000, section 2.

    Attributes:
        slots: boundaries kept at a time besides the first.
    """

    slots: int

    def keep(self, lo: int, hi: int, kept: int) -> list[int]:
        """See `Policy`."""
        boundaries, free = [], self.slots - (kept - 1)
        while free > 0 and (lo := lo + self._stride(hi - lo, free)) < hi - 1:
            boundaries.append(lo)
            free -= 1
        return boundaries

    @staticmethod
    def _stride(length: int, free: int) -> int:
        """How far the first of `free` boundaries lies from the start of `length` segments.

        With s = free + 1 states in all, the start's among them, and β(s, r) = C(s + r, s), an
        optimal stride m has β(s, r-2) <= m <= β(s, r-1) and β(s-1, r-1) <= length - m <= β(s-1, r)
        where β(s, r-1) < length <= β(s, r).
        """
        states, runs = free + 1, 1
        while comb(states + runs, states) < length:
            runs += 1
        return max(1, comb(states + runs - 2, states), length - comb(states - 1 + runs, runs))
