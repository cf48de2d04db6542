"""What is kept of a training for the backward sweep, and where.

What isn't kept is recomputed from the last one that is. So the horizon of an exact hypergradient is
bounded neither by the memory of the device nor by that of the host.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import Final, Literal

from metatune.hypergrad.reverse.budget import cheapest
from metatune.hypergrad.reverse.policies import Every, Kept, Recursive
from metatune.hypergrad.stores import Device, Disk, Host, Place, Store

STORES: Final = ("device", "host", "disk")
POLICIES: Final = ("all", "sqrt", "recursive", "auto")
SHARE_OF_FREE: Final = 0.5
"""Of what is free where states are kept: what `auto` takes without a budget."""


@dataclass(frozen=True)
class Checkpoints:
    """Which states between segments are kept for the backward sweep, and where.

    Gradients that an estimator saves lie in the same place, for segments that are not run again
    before they are pulled back. All policies and stores give the same hypergradient, bit for bit.
    Under `jax.jit` only the default can be used: the others look at values between segments.

    Attributes:
        policy: `all`; `sqrt`, each √n-th of n segments; a number k, each k-th; `recursive`, at
            most `slots` at a time, for any horizon; or `auto`, of these the one that recomputes
            least within the budget.
        slots: states kept at a time besides the first; of `recursive` only.
        store: where: `device`, `host` (memory of the process) or `disk`.
        folder: where a disk's files lie; none of them stays.
        budget_bytes: how much may lie there at a time: of each device, or, on host and disk, of all
            devices of a process together. None for no limit but that of the place; of `auto` for
            half of what is free there.

    Raises:
        ValueError: a choice that isn't there, a number below one, a folder where there is no disk,
            or a disk without a folder.
    """

    policy: Literal["all", "sqrt", "recursive", "auto"] | int = "all"
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
        if self.store != "disk" and self.folder is not None:
            raise ValueError(f"folder is for the store `disk`, not `{self.store}`: leave it out")

    def plan(
        self,
        segments: int,
        sizes: Callable[[], tuple[int, int]],
        free_bytes: Callable[[], int],
    ) -> Kept:
        """What is kept of a training.

        Args:
            segments: how many it has.
            sizes: bytes of a state, and of what a segment saves for its pullback, as the place
                counts them; asked by `auto`.
            free_bytes: what is free where they are kept; asked by `auto` without a budget.

        Raises:
            CheckpointError: `auto` finds none that fits the budget.
        """
        match self.policy:
            case int(interval):
                return Kept(Every(interval))
            case "recursive":
                return Kept(Recursive(self.slots))
            case "sqrt":
                return Kept(Every(isqrt(segments - 1) + 1))
            case "all":
                return Kept(Every(1))
            case "auto":
                budget = self.budget_bytes or int(SHARE_OF_FREE * free_bytes())
                return cheapest(segments, *sizes(), budget)

    def open(self) -> Store:
        """An empty store, to be closed after use.

        Raises:
            CheckpointError: the folder can't be written to.
        """
        return Store(self._place(), self.budget_bytes)

    def _place(self) -> Place:
        if self.folder is not None:
            return Disk(self.folder)
        return Host() if self.store == "host" else Device()
