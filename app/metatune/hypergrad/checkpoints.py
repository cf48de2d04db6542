"""Which states between segments are kept for the backward sweep, and where.

What isn't kept is recomputed from the last one that is. So the horizon of an exact hypergradient is
bounded neither by the memory of the device nor by that of the host.
"""

from dataclasses import dataclass
from math import comb, isqrt
from pathlib import Path
from typing import Final, Literal, Protocol

from metatune.hypergrad.stores import Device, Disk, Host, Store

STORES: Final = ("device", "host", "disk")
POLICIES: Final = ("all", "sqrt", "recursive")


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


@dataclass(frozen=True)
class Every:
    """Keeps each `interval`-th boundary, and all of the stretch that is pulled back next.

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


@dataclass(frozen=True)
class Checkpoints:
    """Which states between segments are kept for the backward sweep, and where.

    Gradients that an estimator saves lie in the same place, for segments that are not run again
    before they are pulled back. All policies and stores give the same hypergradient, bit for bit.
    Under `jax.jit` only the default can be used: the others look at values between segments.

    Attributes:
        policy: `all`; `sqrt`, each √n-th of n segments; a number k, each k-th; or `recursive`, at
            most `slots` at a time, for any horizon.
        slots: states kept at a time besides the first; of `recursive` only.
        store: where: `device`, `host` (memory of the process) or `disk`.
        folder: where a disk's files lie; none of them stays.
        budget_bytes: how much may lie on disk at a time; None for all that is free.

    Raises:
        ValueError: a choice that isn't there, a number below one, or a folder or a budget where
            there is no disk, or a disk without a folder.
    """

    policy: Literal["all", "sqrt", "recursive"] | int = "all"
    slots: int = 8
    store: Literal["device", "host", "disk"] = "device"
    folder: Path | None = None
    budget_bytes: int | None = None

    def __post_init__(self):
        """Refuses what can't be meant."""
        if isinstance(self.policy, str) and self.policy not in POLICIES:
            raise ValueError(
                f"policy = {self.policy!r}: must be one of {', '.join(POLICIES)} or a number"
            )
        for name in ("policy", "slots", "budget_bytes"):
            value = getattr(self, name)
            if isinstance(value, int) and value < 1:
                raise ValueError(f"{name} = {value}: must be 1 or above")
        if self.store not in STORES:
            raise ValueError(f"store = {self.store!r}: must be one of {', '.join(STORES)}")
        if self.store == "disk" and self.folder is None:
            raise ValueError("folder is missing: the store `disk` needs one to write to")
        if self.store != "disk" and (self.folder, self.budget_bytes) != (None, None):
            raise ValueError(
                f"folder and budget_bytes are for the store `disk`, not `{self.store}`: leave "
                "them out"
            )

    def plan(self, segments: int) -> Policy:
        """The policy for a training of so many segments."""
        if self.policy == "recursive":
            return Recursive(self.slots)
        intervals = {"all": 1, "sqrt": isqrt(segments - 1) + 1}
        return Every(self.policy if isinstance(self.policy, int) else intervals[self.policy])

    def open(self) -> Store:
        """An empty store, to be closed after use.

        Raises:
            CheckpointError: the folder can't be written to.
        """
        if self.folder is not None:
            return Store(Disk(self.folder, self.budget_bytes))
        return Store(Host() if self.store == "host" else Device())
